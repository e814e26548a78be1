// Source and result side by side, at the same moment and speed, with the sound of one of them.

import { clock } from "./format.js";
import { remember, remembered } from "./memory.js";

export const SPEEDS = [1, 1.25, 1.5, 1.75, 2];
const DRIFT = 0.12; // seconds that the two may be apart
const STORED = "heygen-async-player";

export class Player {
  constructor(find) {
    this.source = find("source");
    this.result = find("result");
    this.texts = [find("source-box"), find("result-box")].map((box) => box.querySelector(".frame-text"));
    this.elements = Object.fromEntries(["play", "time", "seek", "speeds", "captions", "sound-source", "sound-result"].map((id) => [id, find(id)]));
    this.offset = 0;
    this.frame = 0;
    this.settings = { speed: 1, sound: "result", captions: true, ...stored() };
    this.build();
    this.listen();
    this.apply();
  }

  build() {
    for (const speed of SPEEDS) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${speed}×`;
      button.dataset.speed = speed;
      button.addEventListener("click", () => this.set({ speed }));
      this.elements.speeds.append(button);
    }
  }

  listen() {
    const { play, seek, captions } = this.elements;
    play.addEventListener("click", () => this.toggle());
    seek.addEventListener("input", () => this.seek(Number(seek.value)));
    captions.addEventListener("click", () => this.set({ captions: !this.settings.captions }));
    this.elements["sound-source"].addEventListener("click", () => this.set({ sound: "source" }));
    this.elements["sound-result"].addEventListener("click", () => this.set({ sound: "result" }));
    for (const video of [this.source, this.result]) {
      video.addEventListener("click", () => this.toggle());
      video.addEventListener("error", () => this.failed(video));
      for (const name of ["loadedmetadata", "timeupdate", "durationchange", "play", "pause", "seeked"]) {
        video.addEventListener(name, () => this.follow(video));
      }
      video.addEventListener("loadedmetadata", () => this.loaded(video));
      video.addEventListener("playing", () => this.step());
      video.addEventListener("ended", () => this.pause());
    }
  }

  // While a video plays, its position is drawn in every frame.
  step() {
    cancelAnimationFrame(this.frame);
    this.draw();
    if (this.isPlaying) this.frame = requestAnimationFrame(() => this.step());
  }

  // The video that the controls are about: the result, or the source where there is none.
  get main() {
    return this.result.hasAttribute("src") ? this.result : this.source;
  }

  get other() {
    return this.main === this.result ? this.source : this.result;
  }

  get isPlaying() {
    return !this.main.paused;
  }

  // Show other videos; an address that is null shows a text in its place.
  load({ source, sourceText, result, resultText, captions, offset }) {
    const goesOn = this.isPlaying && result !== null;
    this.pause();
    this.offset = offset;
    this.result.replaceChildren();
    if (captions !== null) {
      const track = document.createElement("track");
      Object.assign(track, { kind: "captions", srclang: "en", label: "Captions", src: captions, default: true });
      this.result.append(track);
    }
    setVideo(this.source, source);
    setVideo(this.result, result);
    setText(this.texts[0], source === null ? sourceText : null);
    setText(this.texts[1], result === null ? resultText : null);
    this.elements.captions.disabled = captions === null;
    this.apply();
    this.draw();
    if (goesOn) this.play();
  }

  loaded(video) {
    video.playbackRate = this.settings.speed;
    if (video === this.source) video.currentTime = this.offset + (this.main === video ? 0 : this.result.currentTime);
    this.apply();
  }

  failed(video) {
    if (!video.hasAttribute("src")) return;
    const isSource = video === this.source;
    setText(this.texts[isSource ? 0 : 1], `The ${isSource ? "source" : "result"} cannot be played here.`);
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    for (const video of [this.main, this.other]) {
      if (video.hasAttribute("src") && !video.error) video.play().catch(() => {}); // a load that replaces it ends it
    }
  }

  pause() {
    this.source.pause();
    this.result.pause();
  }

  seek(time) {
    const length = this.length;
    const wanted = Math.min(Math.max(0, time), length || 0);
    this.main.currentTime = wanted + (this.main === this.source ? this.offset : 0);
    this.align();
    this.draw();
  }

  move(seconds) {
    this.seek(this.time + seconds);
  }

  get time() {
    return Math.max(0, this.main.currentTime - (this.main === this.source ? this.offset : 0));
  }

  get length() {
    return Number.isFinite(this.main.duration) ? this.main.duration - (this.main === this.source ? this.offset : 0) : 0;
  }

  align() {
    if (this.main !== this.result || this.source.readyState === 0) return;
    const wanted = Math.min(this.result.currentTime + this.offset, this.source.duration || 0);
    if (Math.abs(this.source.currentTime - wanted) > DRIFT) this.source.currentTime = wanted;
  }

  follow(video) {
    if (video !== this.main) return;
    if (!video.seeking) this.align();
    const isBehind = this.other.hasAttribute("src") && !this.other.error && this.other.paused && !this.other.ended;
    if (!video.paused && isBehind) this.other.play().catch(() => {});
    if (video.paused) this.other.pause();
    this.draw();
  }

  draw() {
    const { play, time, seek } = this.elements;
    play.classList.toggle("is-playing", this.isPlaying);
    play.setAttribute("aria-label", this.isPlaying ? "Pause" : "Play");
    time.textContent = `${clock(this.time)} / ${clock(this.length)}`;
    seek.max = this.length || 1;
    seek.value = this.time;
    seek.style.setProperty("--done", `${this.length ? (100 * this.time) / this.length : 0}%`);
  }

  set(changes) {
    Object.assign(this.settings, changes);
    remember("localStorage", STORED, this.settings);
    this.apply();
  }

  faster(step) {
    const index = SPEEDS.indexOf(this.settings.speed) + step;
    this.set({ speed: SPEEDS[Math.min(Math.max(0, index), SPEEDS.length - 1)] });
  }

  apply() {
    const { speed, sound, captions } = this.settings;
    for (const video of [this.source, this.result]) video.playbackRate = speed;
    const hearsSource = sound === "source" || !this.result.hasAttribute("src");
    this.source.muted = !hearsSource;
    this.result.muted = hearsSource;
    this.elements["sound-source"].setAttribute("aria-pressed", hearsSource);
    this.elements["sound-result"].setAttribute("aria-pressed", !hearsSource);
    this.elements.captions.setAttribute("aria-pressed", captions);
    for (const button of this.elements.speeds.children) button.setAttribute("aria-pressed", Number(button.dataset.speed) === speed);
    for (const track of this.result.textTracks) track.mode = captions ? "showing" : "disabled";
  }
}

function setVideo(video, address) {
  if (address === null) {
    video.removeAttribute("src");
    video.load();
  } else if (video.getAttribute("src") !== address) {
    video.src = address;
  } else {
    video.currentTime = 0;
  }
  video.classList.toggle("none", address === null);
}

function setText(element, text) {
  element.hidden = text === null;
  element.textContent = text ?? "";
}

function stored() {
  const found = remembered("localStorage", STORED) ?? {};
  return SPEEDS.includes(found.speed) ? found : { ...found, speed: 1 };
}
