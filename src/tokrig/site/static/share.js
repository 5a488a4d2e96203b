// Sharing: one small menu a chart and a page; tokrig.share.menu makes one for anything else. And what ?embed=<id> leaves of a page: that part.
"use strict";

{
  const { make } = tokrig;
  const SVG = "http://www.w3.org/2000/svg";
  const PIXELS = 2; // of a PNG, to a point of the drawing
  const MARGIN = 20;
  const HEAD = 66; // above a drawing, for its title and what it is about
  const FRAME = 96; // around an embedded part: its heading and its source
  const page = document.body.dataset.path;
  const heading = () => document.querySelector("h1")?.textContent.trim() ?? document.title;

  // Addresses: whole ones, else none. On a disk only the site itself knows where it is published.

  const site =
    document.body.dataset.site ||
    (location.protocol.startsWith("http") ? new URL(tokrig.url("."), location.href).href : "");
  /** The whole address of a file of the site; "" where nobody knows it. */
  const address = (path) => site && site + path;
  /** A line of Markdown whose link begins at the site's folder, for anywhere else. */
  const line = (markdown) =>
    site ? markdown.replace("](", () => `](${site}`) : markdown.replace(/\[([^\]]*)\]\([^)]*\)/, "$1");

  // Clipboard and files

  /** Whether the text of an element could be copied; where it could not, it is left selected. */
  const copy = async (element) => {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      // No clipboard for pages of an unencrypted host: the older way.
      getSelection().selectAllChildren(element);
      return document.execCommand("copy");
    }
  };

  const save = (blob, name) => {
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };
  const fileName = (id, ending) => `${page.replace(/\.html$/, "").replaceAll("/", "-")}-${id}.${ending}`;
  const saveCanvas = async (canvas, name) => {
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    const id = name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
    save(blob, fileName(id, "png"));
    return "Saved";
  };
  /** What stands in every picture: where it is from, and the day it was taken. */
  const source = (query = "") =>
    ["tokrig", address(page + query), new Date().toISOString().slice(0, 10)].filter(Boolean).join(" · ");

  // A chart as a file: its colours are the page's, which variables of the style sheet tell

  const element = (tag, attributes, text = "") => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  };

  /** A copy of a drawing in which every colour stands for itself. */
  const painted = (drawing) => {
    const copied = drawing.cloneNode(true);
    const copies = copied.querySelectorAll("*");
    drawing.querySelectorAll("*").forEach((original, place) => {
      for (const name of ["fill", "stroke", "stop-color"]) {
        if (!original.getAttribute(name)?.includes("var(")) continue;
        copies[place].setAttribute(name, getComputedStyle(original).getPropertyValue(name));
      }
    });
    return copied;
  };

  const widthOf = (text, font) => {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = font;
    return pen.measureText(text).width;
  };

  /** A figure as a document of its own: title, what it is about, the drawing, where it is from. */
  const whole = (figure) => {
    const drawing = figure.querySelector(".drawing svg");
    const { width, height } = drawing.viewBox.baseVal;
    const { backgroundColor, color } = getComputedStyle(document.documentElement);
    const texts = [
      [figure.querySelector("figcaption").textContent.trim(), 32, 15, 600],
      [heading(), 50, 12, 400],
      [source(), HEAD + height + 20, 11, 400],
    ];
    const type = "system-ui, sans-serif";
    const widest = texts.map(([text, , size, weight]) => widthOf(text, `${weight} ${size}px ${type}`));
    const size = {
      width: Math.ceil(Math.max(width, ...widest) + 2 * MARGIN),
      height: Math.ceil(HEAD + height + 34),
    };
    const made = element("svg", {
      ...size,
      viewBox: `0 0 ${size.width} ${size.height}`,
      "font-family": type,
      role: "img",
    });
    const moved = element("g", { transform: `translate(${MARGIN},${HEAD})` });
    moved.append(...painted(drawing).childNodes);
    made.append(
      element("rect", { width: size.width, height: size.height, fill: backgroundColor }),
      ...texts.map(([text, y, points, weight]) =>
        element("text", { x: MARGIN, y, "font-size": points, "font-weight": weight, fill: color }, text),
      ),
      moved,
    );
    return { text: new XMLSerializer().serializeToString(made), ...size };
  };

  const saveSvg = (figure) => {
    save(new Blob([whole(figure).text], { type: "image/svg+xml" }), fileName(figure.id, "svg"));
    return "Saved";
  };

  const savePng = async (figure) => {
    const { text, width, height } = whole(figure);
    const picture = new Image();
    picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await picture.decode();
    const canvas = make("canvas", { width: PIXELS * width, height: PIXELS * height });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    return saveCanvas(canvas, figure.id);
  };

  // A chart's table

  const cells = (figure) =>
    [...figure.querySelectorAll("details table tr")].map((row) =>
      [...row.cells].map((cell) => cell.textContent.trim().replace(/\s+/g, " ")),
    );
  /** As naming.in_markdown in Python: what Markdown, HTML or a forum would act upon. */
  const inMarkdown = (text) => text.replace(/[|<>&*`[\]#@~\\]/g, (one) => `&#${one.codePointAt(0)};`);
  const asMarkdown = (rows) => {
    const [head, ...body] = rows.map((row) => `| ${row.map(inMarkdown).join(" | ")} |`);
    return [head, `|${":--|".repeat(rows[0].length)}`, ...body].join("\n");
  };
  /** RFC 4180. What a spreadsheet would take for a formula has an apostrophe in front. */
  const asCsv = (rows) => {
    const safe = (text) => (/^[=@\t\r]|^[+-](?![\d.,]+$)/.test(text) ? `'${text}` : text);
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    return rows.map((row) => `${row.map((cell) => quoted(safe(cell))).join(",")}\r\n`).join("");
  };
  const saveCsv = (figure) => {
    save(new Blob([asCsv(cells(figure))], { type: "text/csv" }), fileName(figure.id, "csv"));
    return "Saved";
  };

  // Embedding: the page itself, of which ?embed=<id> shows one part

  const embedded = (id) => {
    const asked = new URLSearchParams(location.search);
    asked.set("embed", id);
    return address(`${page}?${asked}`);
  };
  const frame = (part, title) => {
    const height = Math.ceil(part.getBoundingClientRect().height) + FRAME;
    const shown = { src: embedded(part.id), title, width: "100%", height, loading: "lazy" };
    const made = make("iframe", { style: "border:0" });
    for (const [name, value] of Object.entries(shown)) made.setAttribute(name, value);
    return made.outerHTML;
  };

  // The menu: its entries are made when it is opened first

  /** Entries into a list: what they are called, and a text to copy or what is to be done, which
   * tells "Saved". */
  const fill = (list, entries) => {
    const status = make("p", { class: "status", role: "status" });
    const shown = make("pre", { class: "unseen", tabindex: "-1" });
    const entry = ([name, act]) => {
      const button = make("button", { type: "button", class: "quiet" }, name);
      button.addEventListener("click", async () => {
        const found = await act();
        if (found === "Saved") status.textContent = "Saved";
        else {
          shown.textContent = found;
          shown.className = "";
          const done = await copy(shown);
          shown.className = done ? "unseen" : "";
          status.textContent = done ? "Copied" : "Selected: press Ctrl-C to copy";
        }
      });
      return button;
    };
    const hint = site ? [] : [make("p", { class: "muted" }, "Open the published page for links, badges and frames.")];
    list.replaceChildren(...entries.filter(Boolean).map(entry), ...hint, status, shown);
  };

  const menu = (label, entries) => {
    const list = make("div", { class: "entries" });
    const summary = make("summary", { "aria-label": label }, "Share");
    const made = make("details", { class: "share" }, summary, list);
    made.addEventListener("toggle", () => made.open && fill(list, entries()));
    made.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !made.open) return;
      made.open = false;
      summary.focus();
    });
    return made;
  };
  document.addEventListener("pointerdown", ({ target }) => {
    for (const open of document.querySelectorAll("details.share[open]")) {
      if (!open.contains(target)) open.open = false;
    }
  });

  const ofChart = (figure) => {
    const title = figure.querySelector("figcaption").textContent.trim();
    return menu(`Share ${title}`, () => [
      figure.querySelector(".drawing svg") && ["Save as SVG", () => saveSvg(figure)],
      figure.querySelector(".drawing svg") && ["Save as PNG", () => savePng(figure)],
      cells(figure).length && ["Copy its table as Markdown", () => asMarkdown(cells(figure))],
      cells(figure).length && ["Save its table as CSV", () => saveCsv(figure)],
      site && ["Copy code to embed it", () => frame(figure, `${title}, ${heading()}`)],
    ]);
  };
  for (const figure of document.querySelectorAll("figure.chart[id]")) {
    figure.insertBefore(ofChart(figure), figure.querySelector("details"));
  }

  /** A part of the page as it stands, with all that was chosen. */
  const ofView = (part, name = part.querySelector("h2").textContent.trim()) => [
    site && ["Copy a link to it", () => address(`${page}${location.search}#${part.id}`)],
    site && ["Copy code to embed it", () => frame(part, `${name}, ${heading()}`)],
  ];
  const ofPart = (place) =>
    menu(`Share ${place.dataset.name}`, () => ofView(document.getElementById(place.dataset.embeds), place.dataset.name));
  for (const place of document.querySelectorAll("[data-embeds]")) place.append(ofPart(place));

  /** What two places offer, the menu of a page and that of a row: of nothing there is no entry. */
  const entriesOf = ({ link, lines, badge, newest }) => {
    const image = (one, to) => () => `[![${inMarkdown(one.text)}](${address(one.path)})](${address(to)})`;
    const all = () => lines.map((one) => `- ${line(one)}`).join("\n");
    return [
      site && link && ["Copy its permanent address", () => address(link)],
      lines.length && ["Copy a line for a forum", () => line(lines[0])],
      lines.length > 1 && [`Copy a line for each of ${lines.length} results`, all],
      site && badge && ["Copy a badge for a README", image(badge, link)],
      site && newest && ["Copy a badge of the newest run here", image(newest, newest.link)],
    ];
  };

  /** A page's own menu, by what the page says of itself: see macros.html. */
  const ofPage = (place) => {
    const { picture, ...shared } = JSON.parse(place.dataset.shares);
    return menu(`Share ${heading()}`, () => [
      ...entriesOf(shared),
      site && picture && ["Copy the address of its picture", () => address(picture)],
    ]);
  };
  for (const place of document.querySelectorAll("[data-shares]")) place.append(ofPage(place));

  // What is left of a page that stands in a frame

  const show = (id) => {
    const part = document.getElementById(id);
    const main = document.querySelector("main");
    const full = make("a", { href: `${tokrig.url(page)}`, target: "_blank", rel: "noopener" }, `tokrig: ${heading()}`);
    const source = make("p", { class: "embed-source", "data-embedded": "" }, full);
    if (part && main.contains(part) && part !== main) {
      const asked = new URLSearchParams(location.search);
      asked.delete("embed");
      full.href += `${asked.size ? `?${asked}` : ""}#${part.id}`;
      part.dataset.embedded = "";
      for (let one = part.parentElement; one !== main; one = one.parentElement) one.dataset.holds = "";
    } else {
      source.prepend(`This page has no part “${id}”. `);
    }
    // The page's own is not shown: who listens hears what the part is of.
    main.append(make("h1", { class: "unseen", "data-embedded": "" }, heading()), source);
    document.documentElement.dataset.embed = "shown";
  };
  const wanted = new URLSearchParams(location.search).get("embed");
  if (wanted !== null) show(wanted);

  tokrig.share = { address, asMarkdown, copy, entriesOf, fill, inMarkdown, line, menu, ofView, saveCanvas, source };
}
