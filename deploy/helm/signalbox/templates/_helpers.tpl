{{- define "signalbox.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Takes (dict "root" $ "tier" "gateway"). */}}
{{- define "signalbox.tierName" -}}
{{ include "signalbox.fullname" .root }}-{{ .tier }}
{{- end -}}

{{- define "signalbox.selector" -}}
app.kubernetes.io/name: signalbox
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .tier }}
{{- end -}}

{{- define "signalbox.labels" -}}
{{ include "signalbox.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: signalbox
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "signalbox.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* A libconfig string: $ begins a variable there and is doubled. */}}
{{- define "signalbox.string" -}}
{{ . | toString | replace "$" "$$" | quote }}
{{- end -}}

{{- define "signalbox.strings" -}}
[{{ range $i, $text := . }}{{ if $i }}, {{ end }}{{ include "signalbox.string" $text }}{{ end }}]
{{- end -}}

{{/* What both programs are told. Takes (dict "root" $ "tier" "gateway" "port" 9601). */}}
{{- define "signalbox.commonConfig" -}}
{{- $v := .root.Values -}}
{{- $role := index $v.nats .tier -}}
node = { id = "${POD_NAME}"; };
cluster = {
  secret = "${CLUSTER_SECRET}";
  placement_seed = "${CLUSTER_PLACEMENT_SEED}";
  {{- if $v.cluster.previousSecretKey }}
  previous_secret = "${CLUSTER_PREVIOUS_SECRET}";
  {{- end }}
};
nats = {
  servers = {{ include "signalbox.strings" (include "signalbox.natsServers" .root | fromJsonArray) }};
  {{- if $v.nats.passwordSecretName }}
  user = {{ include "signalbox.string" $role.user }};
  password = "${NATS_PASSWORD}";
  {{- end }}
  {{- if include "signalbox.natsCaSecret" .root }}
  tls_ca_file = "/etc/signalbox/nats-ca/ca.crt";
  {{- end }}
};
admin = { listen = "0.0.0.0:{{ .port }}"; };
log = { level = {{ include "signalbox.string" $v.log.level }}; format = {{ include "signalbox.string" $v.log.format }}; };
{{- end -}}

{{/* Where this chart's own server of a number is found. Takes (dict "root" $ "number" 0). */}}
{{- define "signalbox.natsHost" -}}
{{- $name := include "signalbox.tierName" (dict "root" .root "tier" "nats") -}}
{{ $name }}-{{ .number }}.{{ $name }}.{{ .root.Release.Namespace }}.svc
{{- end -}}

{{/* The servers' URLs, as a list in JSON. */}}
{{- define "signalbox.natsServers" -}}
{{- $nats := .Values.nats -}}
{{- $urls := $nats.servers -}}
{{- if $nats.enabled -}}
{{- $urls = list -}}
{{- range $number := until (int $nats.replicas) -}}
{{- $host := include "signalbox.natsHost" (dict "root" $ "number" $number) -}}
{{- $urls = append $urls (printf "%s://%s:4222" (ternary "tls" "nats" (ne $nats.tls.secretName "")) $host) -}}
{{- end -}}
{{- end -}}
{{ toJson $urls }}
{{- end -}}

{{/* The Secret with the authority of the servers' certificates, or nothing. */}}
{{- define "signalbox.natsCaSecret" -}}
{{ ternary .Values.nats.tls.secretName .Values.nats.tlsCaSecretName .Values.nats.enabled }}
{{- end -}}

{{- define "signalbox.natsCaVolume" -}}
{{- with include "signalbox.natsCaSecret" . }}
- name: nats-ca
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end -}}

{{- define "signalbox.natsCaMount" -}}
{{- if include "signalbox.natsCaSecret" . }}
- {name: nats-ca, mountPath: /etc/signalbox/nats-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "signalbox.limits" -}}
{{- if . }}
limits = {
  {{- range $name, $value := . }}
  {{ $name }} = {{ int64 $value }};
  {{- end }}
};
{{- end }}
{{- end -}}

{{- define "signalbox.secretEnv" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end -}}

{{- define "signalbox.commonEnv" -}}
{{- $v := .root.Values -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
# No growth by malloc's thread caches: docs/PERFORMANCE.md, "Memory after a crowd".
- {name: GLIBC_TUNABLES, value: glibc.malloc.tcache_count=0}
{{ include "signalbox.secretEnv" (dict "name" "CLUSTER_SECRET" "secret" $v.cluster.secretName "key" $v.cluster.secretKey) }}
{{ include "signalbox.secretEnv" (dict "name" "CLUSTER_PLACEMENT_SEED" "secret" $v.cluster.secretName "key" $v.cluster.placementSeedKey) }}
{{- if $v.cluster.previousSecretKey }}
{{ include "signalbox.secretEnv" (dict "name" "CLUSTER_PREVIOUS_SECRET" "secret" $v.cluster.secretName "key" $v.cluster.previousSecretKey) }}
{{- end }}
{{- if $v.nats.passwordSecretName }}
{{ include "signalbox.secretEnv" (dict "name" "NATS_PASSWORD" "secret" $v.nats.passwordSecretName "key" (index $v.nats .tier).passwordKey) }}
{{- end }}
{{- end -}}

{{/* Of a pod: everything that is the same in all tiers, pod security "restricted" included. */}}
{{- define "signalbox.podSettings" -}}
{{- $v := .root.Values -}}
{{- $tier := index $v .tier -}}
serviceAccountName: {{ include "signalbox.fullname" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with $v.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $tier.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $tier.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tier.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tier.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range $key, $when := dict "topology.kubernetes.io/zone" $tier.topologySpread "kubernetes.io/hostname" "ScheduleAnyway" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels:
        {{- include "signalbox.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{- define "signalbox.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Liveness does not depend on NATS; readiness does. */}}
{{- define "signalbox.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{/* Of an autoscaler: how fast it may change. */}}
{{- define "signalbox.scaleBehavior" -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling: minReplicas %v is more than maxReplicas %v" .minReplicas .maxReplicas) -}}
{{- end -}}
scaleUp:
  stabilizationWindowSeconds: {{ .scaleUp.stabilizationSeconds }}
  selectPolicy: Max
  policies:
    - {type: Percent, value: {{ .scaleUp.percentPerMinute }}, periodSeconds: 60}
    - {type: Pods, value: {{ .scaleUp.podsPerMinute }}, periodSeconds: 60}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDown.stabilizationSeconds }}
  selectPolicy: Min
  policies:
    - {type: Pods, value: {{ .scaleDown.pods }}, periodSeconds: {{ .scaleDown.periodSeconds }}}
{{- end -}}

{{/* A release's own series, in PromQL: namespace and pods. */}}
{{- define "signalbox.series" -}}
namespace="{{ .root.Release.Namespace }}",pod=~"{{ include "signalbox.tierName" . }}-.+"
{{- end -}}

{{/* 0 while nobody joins: a quotient of zeroes would be no number, which an autoscaler cannot use. */}}
{{- define "signalbox.joinP95" -}}
((histogram_quantile(0.95, sum by (le) (rate(signalbox_join_latency_seconds_bucket{ {{- include "signalbox.series" . -}} }[5m]))) >= 0) or vector(0))
{{- end -}}

{{/* Of all attempts to resume that were decided, those that did not get their session back. */}}
{{- define "signalbox.reconnectFailures" -}}
(clamp_min(1 - sum(rate(signalbox_reconnects_total{outcome=~"recovered|resumed",{{ include "signalbox.series" . }}}[5m])) / (sum(rate(signalbox_reconnects_total{outcome!="abandoned",{{ include "signalbox.series" . }}}[5m])) > 0), 0) or vector(0))
{{- end -}}
