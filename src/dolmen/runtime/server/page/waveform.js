// The outline of a recording.

const COLUMNS = 1000;
const RATE = 8000; // enough to see where it is loud

/** An SVG path, 1000 wide and 100 high, of a file's loudness over so many seconds; null if the browser can't decode it. */
export async function outline(file, seconds) {
  let samples;
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    samples = (await context.decodeAudioData(await file.arrayBuffer())).getChannelData(0);
  } catch {
    return null;
  }
  const width = (seconds * RATE) / COLUMNS;
  const peaks = Array.from({ length: COLUMNS }, (_, column) => {
    let most = 0;
    const end = Math.min(samples.length, Math.ceil((column + 1) * width));
    for (let i = Math.floor(column * width); i < end; i++) most = Math.max(most, Math.abs(samples[i]));
    return most;
  });
  const scale = 48 / Math.max(0.02, ...peaks); // silence stays flat
  const side = (sign) => peaks.map((peak, x) => `${x} ${(50 + sign * Math.max(0.6, scale * peak)).toFixed(1)}`);
  return `M${side(-1).join("L")}L${side(1).reverse().join("L")}Z`;
}
