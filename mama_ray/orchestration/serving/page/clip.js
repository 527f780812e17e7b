"use strict";
(() => {
  const { element, tell } = app;
  const player = element("player"), step = Number(element("back").dataset.step);
  const show = () => { element("time").textContent = `${player.currentTime.toFixed(2)} s`; };
  const move = (by) => {
    player.pause();
    // The middle of a frame: at its very edge a browser may show the one before.
    const frame = Math.round(player.currentTime / step - 0.5) + by;
    player.currentTime = Math.min(Math.max(0, (frame + 0.5) * step), player.duration || 0);
  };
  element("back").addEventListener("click", () => move(-1));
  element("on").addEventListener("click", () => move(1));
  for (const name of ["timeupdate", "seeked", "loadedmetadata"]) player.addEventListener(name, show);
  const tellWhyNot = async () => {
    player.hidden = true;
    element("broken").hidden = false;
    try {
      await app.ask(player.getAttribute("src"));
    } catch (error) {
      element("broken").textContent = error.message;
    }
  };
  player.addEventListener("error", tellWhyNot);
  if (player.error) tellWhyNot(); // before this script came
  element("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(element("clip-id").textContent);
      tell("The id is copied.");
    } catch {
      getSelection().selectAllChildren(element("clip-id")); // where the clipboard is not ours
      tell("The id is selected: copy it.");
    }
  });
  const list = element("neighbours");
  if (list) for (const clip of JSON.parse(list.dataset.cards)) list.append(cards.card(clip));
})();
