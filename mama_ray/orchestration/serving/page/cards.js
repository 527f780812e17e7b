"use strict";
// Cards of clips: a poster frame that plays while the pointer, or the keyboard, is on it.
const cards = (() => {
  const { make } = app;

  const isStill = matchMedia("(prefers-reduced-motion: reduce)"); // then nothing moves that was not started
  const play = (frame, clip) => {
    if (isStill.matches || frame.querySelector("video")) return;
    const video = make("video", { src: `/api/clips/${clip.clip_id}/preview`, loop: true, playsinline: true, preload: "auto", "aria-hidden": "true" });
    video.muted = true; // the attribute alone does not count for elements that a script makes
    video.addEventListener("error", () => video.remove());
    frame.append(video);
    video.play().catch(() => { /* the pointer has left before it began */ });
  };

  const stop = (frame) => {
    for (const video of frame.querySelectorAll("video")) {
      video.pause();
      video.removeAttribute("src"); // ends the download
      video.load();
      video.remove();
    }
  };

  // A busy app answers 503, which an image cannot tell from a clip that has no picture: it is asked again, ever later.
  const mostTries = 6, busy = 503;
  const poster = (clip) => {
    const address = `/api/clips/${clip.clip_id}/poster`;
    const image = make("img", { src: address, alt: "", loading: "lazy", decoding: "async" });
    let tries = 0;
    const again = async () => {
      const status = await fetch(address).then((answer) => answer.status, () => busy);
      if (status === 200) {
        tries += 1;
        image.src = `${address}?again=${tries}`; // at the same address it would stay the failed one
      } else if (status === busy) later();
      else image.replaceWith(make("span", { class: "no-picture", text: "cannot be shown" }));
    };
    const later = () => {
      tries += 1;
      if (tries > mostTries) image.replaceWith(make("span", { class: "no-picture", text: "cannot be shown now" }));
      else setTimeout(again, 1000 * 2 ** (tries - 1));
    };
    image.addEventListener("error", () => { if (tries) later(); else again(); });
    return image;
  };

  // options: onselect(clip, isSelected), isSelected(clip), onlike(clip), here (id of the clip that was asked with)
  const card = (clip, options = {}) => {
    const frame = make("a", { class: "frame", href: `/clips/${clip.clip_id}`, "aria-label": clip.caption || clip.clip_id }, poster(clip));
    const item = make("li", { class: "card", "data-clip": clip.clip_id }, frame);
    item.addEventListener("pointerenter", () => play(frame, clip));
    item.addEventListener("pointerleave", () => stop(frame));
    frame.addEventListener("focus", () => play(frame, clip));
    frame.addEventListener("blur", () => stop(frame));
    item.append(make("p", { class: "caption" }, make("bdi", { text: clip.caption || "no caption" })));
    const under = make("div", { class: "row under" });
    if (options.onselect) {
      const box = make("input", { type: "checkbox", "aria-label": `select ${clip.clip_id}` });
      box.checked = options.isSelected(clip);
      box.addEventListener("change", () => options.onselect(clip, box.checked));
      under.append(box);
    }
    if (clip.similarity !== null) under.append(make("b", { class: "similarity", title: "similarity", text: clip.similarity.toFixed(3) }));
    if (clip.source && clip.source !== "human") under.append(make("span", { class: `badge ${clip.source}`, text: clip.source }));
    if (clip.topic) under.append(make("span", { class: "quiet topic", text: clip.topic }));
    if (clip.flags.length) under.append(make("span", { class: "badge bad", title: clip.flags.join(", "), text: "flagged" }));
    if (options.onlike) {
      under.append(make("button", { type: "button", class: "plain push", title: "More like this", "aria-label": `more like ${clip.clip_id}`, text: "≈ more", onclick: () => options.onlike(clip) }));
    }
    item.append(under);
    return item;
  };

  return { card, isStill };
})();
