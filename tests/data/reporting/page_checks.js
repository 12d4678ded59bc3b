// Run inside of a page by page_checks.py; each returns what is wrong, or the text that is seen.
const CONTRAST = () => (
(() => {
  const parsed = (text) => { const n = text.match(/[\d.]+/g)?.map(Number); return n ? [n[0], n[1], n[2], n[3] ?? 1] : [0, 0, 0, 0]; };
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) { const c = parsed(getComputedStyle(one).backgroundColor); if (c[3]) layers.push(c); if (c[3] === 1) break; }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || !element.getClientRects().length || element.closest("script, style, [hidden]")) continue;
    const style = getComputedStyle(element), isDrawn = element instanceof SVGElement;
    if (style.visibility === "hidden" || element.closest("button:disabled, [aria-hidden=true]")) continue;
    const colour = parsed(isDrawn ? style.fill : style.color);
    let opacity = colour[3];
    for (let one = element; one; one = one.parentElement) opacity *= Number(getComputedStyle(one).opacity);
    const ground = behind(element), ink = over([...colour.slice(0, 3), opacity], ground);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x), size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < wanted - 0.01) found.push(`${((a + 0.05) / (b + 0.05)).toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
  }
  return [...new Set(found)].slice(0, 8);
})()
);
const OVERLAPS = () => (
(() => {
  const found = [];
  for (const svg of document.querySelectorAll("figure svg")) {
    if (!svg.getClientRects().length) continue;
    const texts = [...svg.querySelectorAll("text")].filter((one) => one.textContent.trim() && !/rotate\(-?45|rotate\(-?3[01]/.test(one.outerHTML));
    const boxes = texts.map((one) => one.getBoundingClientRect());
    for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
      const wide = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
      const high = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
      if (wide > 4 && high > 0.5 * Math.min(boxes[i].height, boxes[j].height)) found.push(`${texts[i].textContent.trim()} | ${texts[j].textContent.trim()}`);
    }
  }
  return found.slice(0, 8);
})()
);
const UNREACHED = () => (
[...document.querySelectorAll(".wide, figure")].filter((one) => one.scrollWidth > one.clientWidth + 1
  && !(one.tabIndex === 0 && one.getAttribute("role") === "region" && one.getAttribute("aria-label"))).map((one) => one.outerHTML.slice(0, 80))
);
const TEXT = () => (
[...document.querySelectorAll(".page")].filter((one) => one.getClientRects().length).map((page) => {
  const copy = page.cloneNode(true);
  for (const one of copy.querySelectorAll("script, style, code, pre, [lang=en], bdi, td[dir=auto], td.id, td.how")) one.remove();
  return copy.innerText ?? copy.textContent;
}).join("\n")
);
