/**
 * Calls back when the sound of a track rises over or falls below what counts as speech.
 *
 * @param {MediaStreamTrack} track
 * @param {(speaking: boolean, level: number) => void} callback level from 0 to 100
 * @returns {() => void} stops it
 */
export function detectSpeaking(track, callback, { threshold = 35, holdMs = 600, intervalMs = 100 } = {}) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 2048;
  const source = context.createMediaStreamSource(new MediaStream([track]));
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let speaking = false;
  let loudAt = -Infinity;

  const timer = setInterval(() => {
    // Browsers start contexts suspended until the page has been used.
    if (context.state === 'suspended') context.resume().catch(() => {});
    analyser.getFloatTimeDomainData(samples);
    const rms = Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
    // Loudness is heard logarithmically: -60 dB below full scale is silence, speech begins around -40 dB.
    const decibels = 20 * Math.log10(Math.max(rms, 1e-6));
    const level = track.enabled ? Math.round(Math.min(100, Math.max(0, (decibels + 60) / 0.6))) : 0;
    const now = performance.now();
    if (level >= threshold) loudAt = now;
    const active = now - loudAt < holdMs;
    if (active !== speaking) {
      speaking = active;
      callback(active, level);
    }
  }, intervalMs);

  return () => {
    clearInterval(timer);
    source.disconnect();
    context.close().catch(() => {});
  };
}
