// In the browser's audio thread: the microphone's samples as 16-bit numbers, a tenth of a second at a time.
class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.renew();
  }

  renew() {
    this.piece = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
  }

  process([[samples]]) {
    if (samples === undefined) return true; // nothing is connected at the moment
    for (const sample of samples) {
      this.piece[this.count++] = Math.round(32767 * Math.max(-1, Math.min(1, sample)));
      if (this.count === this.piece.length) {
        this.port.postMessage(this.piece, [this.piece.buffer]);
        this.renew();
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
