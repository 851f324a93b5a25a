// The microphone, and what it gives as a file.

const ALONE = "or choose a recording";
const REFUSED = {
  NotAllowedError: `The microphone was refused. Allow it in the browser's settings for this page and press Speak again, ${ALONE}.`,
  NotFoundError: `There is no microphone here. Connect one and press Speak again, ${ALONE}.`,
  NotReadableError: `The microphone is in use by something else. Close that and press Speak again, ${ALONE}.`,
};

/**
 * Listen: `heard(piece)` is given 16-bit samples as they come, `ended()` is called if the microphone goes away.
 * Gives `{ rate, stop() }`, or throws a sentence. The sound is taken as it is, as in the recordings that a model learned.
 */
export async function listen(heard, ended) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error(`Browsers let pages listen over HTTPS or at 127.0.0.1 only. Open this page there, ${ALONE}.`);
  }
  let stream;
  try {
    const plain = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    throw new Error(REFUSED[error.name] ?? `The microphone can't be used (${error.name}). Choose a recording instead.`);
  }
  const context = new AudioContext();
  const stop = () => {
    for (const track of stream.getTracks()) track.stop();
    if (context.state !== "closed") context.close();
  };
  try {
    await context.audioWorklet.addModule("page/capture.js");
    const capture = new AudioWorkletNode(context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    capture.port.onmessage = ({ data }) => heard(data);
    context.createMediaStreamSource(stream).connect(capture).connect(context.destination); // it says nothing there
    await context.resume();
  } catch (error) {
    stop();
    throw new Error(`This browser can't listen (${error.name}). Choose a recording instead.`);
  }
  stream.getAudioTracks()[0].addEventListener("ended", ended);
  return { rate: context.sampleRate, stop };
}

/** How loud a piece is: 0 (-60 dB and below) to 1 (as loud as can be). */
export function level(piece) {
  let energy = 0;
  for (const sample of piece) energy += sample * sample;
  const decibels = 10 * Math.log10(energy / piece.length / 32768 ** 2 + 1e-12);
  return Math.max(0, Math.min(1, 1 + decibels / 60));
}

/** Pieces of samples as a WAV file. */
export function wav(pieces, rate, name) {
  const size = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  const head = new DataView(new ArrayBuffer(44));
  const put = (at, text) => [...text].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  put(0, "RIFF");
  head.setUint32(4, 36 + size, true);
  put(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true); // PCM
  head.setUint16(22, 1, true); // of one channel
  head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  put(36, "data");
  head.setUint32(40, size, true);
  return new File([head, ...pieces], name, { type: "audio/wav" });
}
