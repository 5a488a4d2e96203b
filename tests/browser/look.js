// What is looked for on a page; each answer lists what is wrong, nothing where all is well.
const look = (() => {
  const tidy = (text) => text.replace(/\s+/g, " ").trim();
  const seen = (element) => element.checkVisibility({ visibilityProperty: true });
  const where = (element) => {
    const parts = [];
    for (let one = element; one && one !== document.body && parts.length < 4; one = one.parentElement) {
      parts.unshift([one.localName + (one.id ? `#${one.id}` : ""), ...one.classList].join("."));
    }
    return parts.join(" > ");
  };
  function* texts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()); ) {
      const parent = node.parentElement;
      if (node.data.trim() && !parent.closest("script, style, template, noscript, option, title, desc")) yield [node, parent];
    }
  }

  /** Texts that are not rendered, but for what may be closed. */
  function hidden(allowed) {
    const found = new Set();
    for (const [, parent] of texts()) {
      if (seen(parent) || parent.closest(allowed)) continue;
      let top = parent;
      while (!seen(top.parentElement)) top = top.parentElement;
      found.add(where(top));
    }
    return [...found];
  }

  // Hashes and addresses have no place to break at; a line of CJK breaks anywhere.
  const MUST_BREAK = /^[0-9a-f]{16,}$|[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/u;
  /** Words of which a part stands in another line. */
  function broken() {
    const found = [];
    const range = document.createRange();
    for (const [node, parent] of texts()) {
      if (!seen(parent) || parent.closest("code, pre, .unseen")) continue;
      for (const word of node.data.matchAll(/[\p{L}\p{M}\p{N}_.,:'’]{2,}/gu)) {
        if (MUST_BREAK.test(word[0])) continue;
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const lines = [...range.getClientRects()].filter((one) => one.width > 0.5);
        if (lines.some((one) => Math.abs(one.top - lines[0].top) > one.height / 2)) found.push([word[0], where(parent)]);
      }
    }
    return found;
  }

  /** Rows of a table, entries of a list and choices that read like another. */
  function alike() {
    const found = [];
    const compare = (what, all) => {
      const known = new Set();
      for (const text of all) {
        if (text && known.has(text)) found.push([what, text.slice(0, 200)]);
        known.add(text);
      }
    };
    for (const table of document.querySelectorAll("table")) {
      let head = "";
      const rows = [];
      for (const row of table.tBodies.length ? [...table.tBodies].flatMap((one) => [...one.rows]) : []) {
        if (!seen(row)) continue;
        if (row.cells.length === 1) head = tidy(row.innerText);
        else rows.push(`${head} | ${tidy(row.innerText)}`);
      }
      compare(where(table), rows);
      compare(`${where(table)} heads`, [...(table.tHead?.rows[0]?.cells ?? [])].map((one) => tidy(one.textContent)));
    }
    for (const list of document.querySelectorAll("main ul, main ol")) compare(where(list), [...list.children].filter(seen).map((one) => tidy(one.innerText)));
    for (const list of document.querySelectorAll("select")) compare(where(list), [...list.options].map((one) => one.text));
    compare("boxes to pick rows", [...document.querySelectorAll("input[data-pick]")].map((one) => one.ariaLabel));
    return found;
  }

  /** What is cut off, or scrolls up and down inside of the page: a picture of the page lacks it. */
  function cut() {
    return [...document.querySelectorAll("main *")].filter((one) => {
      const { display, overflowY, textOverflow, contentVisibility } = getComputedStyle(one);
      if (one.closest(".unseen, thead, .entries, svg, pre, input")) return false;
      if (contentVisibility === "auto" || textOverflow === "ellipsis") return true;
      return display !== "inline" && overflowY !== "visible" && one.clientHeight && one.scrollHeight > one.clientHeight + 2;
    }).map(where).concat([...document.querySelectorAll("main :is(tr, li, dd, figure)")].filter((one) => seen(one) && getComputedStyle(one).display === "block" && one.scrollHeight > one.clientHeight + 2).map((one) => `${where(one)} reaches into the next`));
  }

  const TARGETS = "a[href], button, select, input, textarea, summary";
  const DENSE = "table, .bars, dl, .lines, .queue, .command, .contents, .histories, .marks";
  /** Targets that are too small for a finger: 44 px, in dense lists 24 px or as far from others. */
  function small() {
    const all = [...document.querySelectorAll(TARGETS)]
      .filter((one) => seen(one) && !one.closest(".skip, .unseen, svg") && !(one.closest("thead") && getComputedStyle(one.closest("thead")).clipPath !== "none"))
      .map((one) => {
        const box = one.matches("[type=checkbox], [type=radio]") ? one.closest("label") ?? one : one;
        const rects = [...box.getClientRects()];
        const { width, height } = box.getBoundingClientRect();
        const middle = rects.length && { x: (rects[0].left + rects[0].right) / 2, y: (rects[0].top + rects[0].bottom) / 2 };
        return { one, rects, width, height, middle };
      })
      .filter(({ rects }) => rects.length);
    const isInline = (link) => {
      const block = link.parentElement.closest("p, li, td, th, dd, dt, h1, h2, h3, summary, caption, figcaption");
      return link.localName === "a" && block && tidy(block.innerText) !== tidy(link.innerText) && getComputedStyle(link).display === "inline";
    };
    const far = (a, b) => {
      const own = (rect) => Math.hypot(Math.max(rect.left - a.middle.x, 0, a.middle.x - rect.right), Math.max(rect.top - a.middle.y, 0, a.middle.y - rect.bottom));
      if (b.width < 24 || b.height < 24) return Math.hypot(a.middle.x - b.middle.x, a.middle.y - b.middle.y) >= 24;
      return b.rects.every((rect) => own(rect) >= 12);
    };
    const found = [];
    for (const each of all) {
      const { one, width, height } = each;
      if (one.localName !== "a" && !one.closest(DENSE)) {
        if (height < 43.5 || width < 24) found.push(["44", where(one), Math.round(width), Math.round(height)]);
      } else if ((height < 24 || width < 24) && !isInline(one)) {
        const near = all.find((other) => other.one !== one && Math.abs(other.middle.y - each.middle.y) < 80 && !isInline(other.one) && !far(each, other));
        if (near) found.push(["24", where(one), Math.round(width), Math.round(height), where(near.one)]);
      }
    }
    return found;
  }

  /** Dotted labels without a definition. */
  const unexplained = () => {
    const { definitions } = window.tokrig ?? {};
    const marks = [...document.querySelectorAll("main .mark:not([title], :has([data-term]))")].map((one) => `${where(one)} ${one.textContent}`);
    return definitions ? [...marks, ...[...document.querySelectorAll("[data-term]")].map((one) => one.dataset.term).filter((term) => !definitions[term])] : marks;
  };

  /** Lists of shapes that stand in another order than all others: rows, heads, choices, sentences. */
  function jumbled(shapes) {
    const named = new RegExp(`^(${shapes.join("|")})(?![\\w-])`);
    const listed = new RegExp(`(?<![\\w-])(?:${shapes.join("|")})(?:(?:, and |, | and | · )(?:${shapes.join("|")})(?![\\w-]))+`, "g");
    const found = [];
    const check = (where, names) => {
      const places = names.map((name) => shapes.indexOf(name));
      if (places.some((place, at) => place < places[at - 1])) found.push([where, names]);
    };
    const texts = (all) => [...all].map((one) => tidy(one.textContent));
    /** Texts that follow each other; those that name what they are of, ``chat · Q4_K_M``, by that. */
    const runs = (where, all) => {
      let [names, before] = [[], null];
      for (const text of [...all, ""]) {
        const name = named.exec(text)?.[1];
        const of = text.split(" · ").slice(1).join();
        if (!name || of !== before) {
          check(where, names);
          names = [];
        }
        if (name) names.push(name);
        before = of;
      }
    };
    for (const one of document.querySelectorAll("select, ul, ol, tr, svg g, main, section, div, p, fieldset, dl")) runs(where(one), texts(one.children));
    for (const one of document.querySelectorAll("tbody")) runs(where(one), texts([...one.rows].flatMap((row) => row.cells[0] ?? [])));
    const said = [document.body.innerText, ...[...document.querySelectorAll("[content], [aria-label], [title], option")].map((one) => one.content ?? one.ariaLabel ?? (one.title || one.textContent))];
    for (const text of said) for (const [list] of String(text).matchAll(listed)) check(list, list.split(/, and |, | and | · /));
    return found;
  }

  return { hidden, small, jumbled, all: () => ({ alike: alike(), broken: broken(), cut: cut(), unexplained: unexplained() }) };
})();
