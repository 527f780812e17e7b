"use strict";
// Sends a video, and lists the narrations while they come along.
(() => {
  const { element, ask, make } = app;
  const form = element("upload");
  const size = (bytes) => bytes < 1 << 20 ? `${Math.max(1, Math.round(bytes / 1024))} KiB` : `${(bytes / (1 << 20)).toFixed(bytes < 1e8 ? 1 : 0)} MiB`;

  if (form) {
    const file = element("file"), drop = element("drop"), maxBytes = Number(form.dataset.maxBytes);
    let request = null;

    const refuse = (reason) => {
      element("refused").hidden = !reason;
      element("refused").textContent = reason;
    };
    const choose = () => {
      const [video] = file.files;
      element("chosen").textContent = video ? video.name : "Choose a video, or drop it here";
      element("limit").textContent = video ? size(video.size) : `up to ${size(maxBytes)}`;
      refuse("");
    };
    file.addEventListener("change", choose);
    for (const name of ["dragenter", "dragover"]) {
      drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
    }
    for (const name of ["dragleave", "drop"]) {
      drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
    }
    drop.addEventListener("drop", (event) => {
      if (event.dataTransfer.files.length) file.files = event.dataTransfer.files;
      choose();
    });

    const sending = (isSending) => {
      element("sending").hidden = element("stop").hidden = !isSending;
      element("send").disabled = file.disabled = isSending;
    };
    // The browser's older way to send, for fetch does not tell how far it is.
    const send = (video) => {
      const asked = new URLSearchParams({ name: video.name, window_s: element("window_s").value, num_captions: element("num_captions").value });
      request = new XMLHttpRequest();
      request.open("POST", `/api/uploads?${asked}`);
      request.upload.addEventListener("progress", (event) => {
        element("progress").value = event.loaded / video.size;
        const isSent = event.loaded >= video.size;
        element("sent").textContent = isSent ? "Sent; the video is looked at." : `${size(event.loaded)} of ${size(video.size)}`;
      });
      request.addEventListener("load", () => {
        sending(false);
        let answer = null;
        try { answer = JSON.parse(request.responseText); } catch { /* told by its status */ }
        if (request.status === 201) location.assign(`/narrate/${answer.id}`);
        else refuse((answer && answer.detail) || `The video was refused with status ${request.status}.`);
      });
      request.addEventListener("error", () => { sending(false); refuse("The upload was broken off."); });
      request.addEventListener("abort", () => sending(false));
      request.setRequestHeader("content-type", "application/octet-stream");
      element("progress").value = 0;
      element("sent").textContent = "";
      sending(true);
      request.send(video);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const [video] = file.files;
      refuse("");
      if (!video) return;
      if (video.size > maxBytes) refuse(`The video has ${size(video.size)}; it may have ${size(maxBytes)}.`);
      else send(video);
    });
    element("stop").addEventListener("click", () => { if (request) request.abort(); });
  }

  const told = (one) => {
    switch (one.state) {
      case "queued": return one.before ? `waits, ${one.before} before it` : "waits for its turn";
      case "running": return one.num_done ? `${one.num_done.toLocaleString("en")} of ${one.num_windows.toLocaleString("en")} windows` : "starts";
      case "failed": return `failed: ${one.reason}`;
      default: return one.state;
    }
  };
  const line = (one) => make("li", {},
    make("a", { href: `/narrate/${one.id}` }, make("bdi", { text: one.name })),
    make("span", { class: "quiet", text: `${app.clock(one.duration_s)} · ${size(one.num_bytes)} · ${new Date(one.created_s * 1000).toLocaleString()}` }),
    make("span", { class: one.state === "failed" ? "told bad" : "told", text: told(one) }));

  let shown = "";
  const list = async () => {
    let pause = 5000;
    try {
      const narrations = await ask("/api/narrations");
      const now = JSON.stringify(narrations);
      if (now !== shown) {
        shown = now;
        const focused = document.activeElement && document.activeElement.getAttribute("href");
        element("narrations").replaceChildren(...narrations.map(line));
        element("none").hidden = narrations.length > 0;
        if (focused && focused.startsWith("/narrate/")) {
          const link = element("narrations").querySelector(`a[href="${focused}"]`);
          if (link) link.focus();
        }
      }
      pause = narrations.some((one) => one.state === "running" || one.state === "queued") ? 1500 : 10000;
    } catch { /* the app is being started again: the next look tells */ }
    setTimeout(list, pause);
  };
  list();
})();
