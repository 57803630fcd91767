/**
 * Calls back when the sound of a track rises over or falls below what counts as speech.
 *
 * @param {MediaStreamTrack} track
 * @param {(speaking: boolean, level: number) => void} callback level from 0 to 100
 * @returns {() => void} stops it
 */
export function detectSpeaking(track, callback, { threshold = 12, holdMs = 600, intervalMs = 100 } = {}) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
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
    const level = track.enabled ? Math.min(100, Math.round(rms * 300)) : 0;
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
