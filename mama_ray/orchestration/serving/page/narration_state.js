"use strict";
// How far a narration is, in words and as a bar, and what can be done with it then.
const progress = (() => {
  const { element } = app;

  const describe = (told, hasWindows) => {
    const done = (told.num_done || 0).toLocaleString("en"), all = told.num_windows.toLocaleString("en");
    const words = {
      queued: told.before ? `Waits for its turn: ${told.before} before it.` : "Waits for its turn.",
      running: !told.num_done ? "The narrator starts." : told.num_done < told.num_windows ? `${done} of ${all} windows are narrated.` : `All ${all} windows are narrated; the table is written.`,
      done: `${all} windows are narrated.`, cancelled: `Cancelled: ${done} of ${all} windows are narrated.`, failed: `Failed: ${told.reason}`,
    };
    element("state").textContent = words[told.state];
    element("state").classList.toggle("bad", told.state === "failed");
    const isOver = ["done", "failed", "cancelled"].includes(told.state);
    element("progress").hidden = isOver;
    if (told.num_done || told.state === "queued") element("progress").value = (told.num_done || 0) / told.num_windows;
    else element("progress").removeAttribute("value");
    element("cancel").hidden = isOver;
    element("retry").hidden = !["failed", "cancelled"].includes(told.state);
    element("retry").textContent = told.state === "failed" ? "Try again" : "Go on";
    element("notice").hidden = !told.notice;
    element("notice").textContent = told.notice || "";
    if (isOver && !hasWindows) element("waiting").textContent = "Nothing was narrated.";
  };
  // After that there is nothing to follow, and nothing to press.
  const isGone = () => {
    element("state").textContent = "This narration was deleted in another window.";
    for (const one of document.querySelectorAll(".narration-state button, .narration-state a, .narration-state progress, #edit, #editor, #restore")) one.hidden = true;
  };

  return { describe, isGone };
})();
