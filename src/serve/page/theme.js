// Light, dark, or as the system is: chosen before the first pixel, therefore a script of its own in the head.
"use strict";
{
  const names = { "": "as the system", light: "light", dark: "dark" };
  const order = ["", "light", "dark"];
  const stored = () => {
    try {
      return localStorage.getItem("ferry.theme") ?? "";
    } catch {
      return "";  // storage may be forbidden; then each visit begins as the system is
    }
  };
  const show = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    const button = document.getElementById("theme");
    if (!button) return;
    const text = `Colours: ${names[theme]}`;
    button.setAttribute("aria-label", text);
    button.title = text;
  };

  let theme = order.includes(stored()) ? stored() : "";
  show(theme);
  document.addEventListener("DOMContentLoaded", () => {
    show(theme);
    document.getElementById("theme").addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      show(theme);
      try {
        localStorage.setItem("ferry.theme", theme);
      } catch {
        // it holds until the page is left
      }
    });
  });
}
