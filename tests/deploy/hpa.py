"""The HorizontalPodAutoscaler's documented algorithm (https://kubernetes.io/docs/tasks/run-application/
horizontal-pod-autoscale/, "Algorithm details" and "Configurable scaling behavior"), over a rendered object."""

import math

SYNC_S = 15
TOLERANCE = 0.1


def quantity(text):
    """"500m" -> 0.5, "1700" -> 1700.0"""
    text = str(text)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def ratio_of_pods(values, replicas, goal):
    """How far the pods are above their goal. Those of which nothing is known yet count as idle where there would be more, and as
    at the goal where there would be fewer, and cannot turn one into the other."""
    ratio = sum(values) / len(values) / goal
    missing = (replicas - len(values)) * (goal if ratio < 1 else 0)
    careful = (sum(values) + missing) / replicas / goal
    return 1.0 if (ratio > 1) != (careful > 1) else careful


class Autoscaler:
    def __init__(self, spec):
        self.spec = spec
        self.recommended = []  # (when, how many), before the behaviour's limits
        self.changes = []  # (when, difference)

    def wanted(self, replicas, signals):
        """The greatest of what each signal asks for. `signals`: by metric name, the average of the pods, a list of the values of
        those that have one, or the value; a signal without a value asks for nothing."""
        proposals = []
        for metric in self.spec["metrics"]:
            part = metric[metric["type"].lower()]
            target = part["target"]
            value = signals.get(part["name"] if metric["type"] == "Resource" else part["metric"]["name"])
            if value is None or value == []:
                continue
            goal = quantity(target.get("averageValue", target.get("averageUtilization", target.get("value"))))
            ratio = ratio_of_pods(value, replicas, goal) if isinstance(value, list) else value / goal
            proposals.append(replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * replicas))
        return max(proposals, default=replicas)

    def stabilized(self, now_s, replicas, wanted):
        """No more than the least that was wanted in the window for growing, no less than the most in the one for
        shrinking."""
        behaviour = self.spec["behavior"]
        windows = {way: behaviour[way]["stabilizationWindowSeconds"] for way in ("scaleUp", "scaleDown")}
        self.recommended.append((now_s, wanted))
        self.recommended = [each for each in self.recommended if each[0] > now_s - max(*windows.values(), SYNC_S)]
        least = min(count for at, count in self.recommended if at == now_s or at > now_s - windows["scaleUp"])
        most = max(count for at, count in self.recommended if at == now_s or at > now_s - windows["scaleDown"])
        return min(max(replicas, least), most)

    def limit(self, now_s, replicas, way):
        """How far the policies of a way let it go."""
        sign = 1 if way == "scaleUp" else -1
        rules = self.spec["behavior"][way]
        limits = []
        for policy in rules["policies"]:
            begun = replicas - sum(change for at, change in self.changes if at > now_s - policy["periodSeconds"])
            if policy["type"] == "Pods":
                limits.append(begun + sign * policy["value"])
            else:
                exact = begun * (1 + sign * policy["value"] / 100)
                limits.append(math.ceil(exact) if sign > 0 else math.floor(exact))
        most_change = rules.get("selectPolicy", "Max") == "Max"
        return max(limits) if most_change == (sign > 0) else min(limits)

    def step(self, now_s, replicas, signals):
        """How many replicas there are after this look at the signals."""
        count = self.stabilized(now_s, replicas, self.wanted(replicas, signals))
        if count > replicas:
            count = min(count, max(replicas, self.limit(now_s, replicas, "scaleUp")))
        elif count < replicas:
            count = max(count, min(replicas, self.limit(now_s, replicas, "scaleDown")))
        count = max(self.spec["minReplicas"], min(self.spec["maxReplicas"], count))
        if count != replicas:
            self.changes.append((now_s, count - replicas))
        return count
