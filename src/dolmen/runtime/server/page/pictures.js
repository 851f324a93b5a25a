// Pictures: drop, paste or choose them; each gets a card.
import { make } from "./dom.js";
import { FileCard, fileZone } from "./files.js";

/** A place to bring pictures to; each gets a `Card`, which shows what the model says of it. */
export function picturePanel(model, Card) {
  const address = `v1/models/${encodeURIComponent(model.name)}`;
  const files = fileZone({ what: "pictures", accept: "image/*", card: (file) => new Card(model, address, file) });
  return { content: [files.zone, files.cards], leave: files.leave };
}

/** A picture and what the model says of it. */
export class PictureCard extends FileCard {
  constructor(...given) {
    super(...given);
    this.image = make("img", { alt: "", src: this.address_of_file });
    this.picture = make("div", { className: "picture" }, this.image);
    this.image.addEventListener("load", () => this.image.classList.toggle("small", this.image.naturalWidth < 128));
    this.image.addEventListener("error", () => {
      this.image.remove();
      this.picture.append(make("p", {}, "No preview of this file"));
    });
    this.element.prepend(this.picture);
  }
}
