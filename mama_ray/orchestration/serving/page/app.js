"use strict";
// What the scripts of all pages share, as `app`.
const app = (() => {
  const element = (name) => document.getElementById(name);

  // Ask the JSON interface; what it refuses, and what comes from somebody else, is an Error with its reason.
  const noAnswer = "The app does not answer: it was stopped, or the network is away. Try again.";
  const ask = async (address, options = {}) => {
    if (options.json !== undefined) {
      options = { ...options, body: JSON.stringify(options.json), headers: { "content-type": "application/json", ...options.headers } };
    }
    let answer = null, text = "", content = null;
    try {
      answer = await fetch(address, options);
      text = await answer.text();
    } catch { throw new Error(noAnswer); } // a browser's own words for it say nothing
    const isPage = (answer.headers.get("content-type") || "").startsWith("text/html"); // as of a proxy
    try { content = JSON.parse(text); } catch { /* not JSON: told below, or not wanted */ }
    if (!answer.ok) throw new Error((content && content.detail) || (!isPage && text.slice(0, 200)) || `The answer was status ${answer.status}.`);
    if (isPage) throw new Error("Something else has answered in the place of the app. Try again.");
    return content;
  };

  let timer = null;
  const tell = (text) => {
    const toast = element("toast");
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(timer);
    timer = setTimeout(() => { toast.hidden = true; }, 6000);
  };

  // An element with attributes, `text`, `on...` listeners and children; text is never taken for HTML.
  const make = (name, given = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(given)) {
      if (value === undefined || value === null || value === false) continue;
      if (key === "text") made.textContent = value;
      else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  const clock = (seconds) => {
    const whole = Math.floor(seconds), pad = (number) => String(number).padStart(2, "0");
    const minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
    return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
  };

  // Hand a text to the person as a file.
  const save = (name, text, kind = "text/plain") => {
    const address = URL.createObjectURL(new Blob([text], { type: kind }));
    const link = make("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };

  return { element, ask, noAnswer, tell, make, clock, save };
})();
