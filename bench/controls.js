// Operates every control of a page, some twenty times each: [[name, milliseconds…], …].
//
// An operation lasts from before its event is dispatched until the last change of the document that
// it brings is laid out, also where that comes later than the handlers end. Between two, the page
// has a frame to paint.
async () => {
  const MOST = 10; // choices of one control; each there and back
  const TYPED = "qwen3 q4";
  const found = new Map();
  const layout = () => document.documentElement.getBoundingClientRect();
  let ended = 0;
  const changed = () => {
    layout();
    ended = performance.now();
  };
  new MutationObserver(changed).observe(document.body, { childList: true, subtree: true, attributes: true, characterData: true });
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const timed = async (name, act) => {
    layout();
    const began = performance.now();
    act();
    changed();
    await painted();
    found.set(name, [...(found.get(name) ?? []), ended - began]);
  };
  const some = (list) => list.filter((_, at) => at % Math.ceil(list.length / MOST) === 0);
  const told = (element, ...events) => events.forEach((event) => element.dispatchEvent(new Event(event, { bubbles: true })));
  // Pages draw controls anew: each is looked for again before it is used.
  const all = (selector, within = "main") => [...document.querySelectorAll(selector)].filter((one) => one.closest(within) && !one.closest("form.pair, .share, template"));
  const nameOf = (one) =>
    [one.closest("label")?.firstChild.textContent, one.getAttribute("aria-label"), one.name, one.textContent, one.type].map((text) => text?.trim()).find(Boolean).slice(0, 26);

  const kinds = {
    "input[type=search], input[type=text], input:not([type])": async (again, name) => {
      const type = (value) => timed(name, () => ((again().value = value), told(again(), "input", "change")));
      const before = again().value;
      for (let end = 1; end <= TYPED.length; end += 1) await type(TYPED.slice(0, end));
      for (let end = TYPED.length - 1; end > 0; end -= 1) await type(TYPED.slice(0, end));
      await type(before);
    },
    select: async (again, name) => {
      const usual = again().value;
      const choose = (value) => timed(name, () => ((again().value = value), told(again(), "input", "change")));
      for (const { value } of some([...again().options].filter((one) => one.value !== usual))) {
        await choose(value);
        await choose(usual);
      }
    },
    "input[type=range]": async (again, name) => {
      const usual = again().value;
      const stops = [...Array(Number(again().max) + 1).keys()].map(String).filter((stop) => stop !== usual);
      for (const stop of [...some(stops), usual]) await timed(name, () => ((again().value = stop), told(again(), "input", "change")));
    },
    "thead button, button[name=more], button.fold, .pager button": async (again, name) => {
      for (let time = 0; time < 4 && again() && !again().disabled; time += 1) await timed(name, () => again().click());
    },
    "input[type=checkbox]": async (again, name) => {
      for (let time = 0; time < 2 && again() && !again().disabled; time += 1) await timed(name, () => again().click());
    },
    "button[popovertarget]": async (again, name) => {
      const list = () => document.getElementById(again().getAttribute("popovertarget"));
      for (let time = 0; time < 4; time += 1) {
        await timed(`${name}, opened`, () => list().showPopover());
        if (time < 3) list().hidePopover();
      }
      for (const value of some([...list().querySelectorAll("input[type=checkbox]")].map((box) => box.value))) {
        const box = () => list().querySelector(`input[value="${CSS.escape(value)}"]`);
        await timed(`${name}, chosen`, () => box().click());
        await timed(`${name}, chosen`, () => box().click());
      }
      list().hidePopover();
    },
    "details > summary": async (again, name) => {
      for (let time = 0; time < 2; time += 1) await timed(`${name}, unfolded`, () => again().click());
    },
  };
  // Of many that are alike a few stand for all, under one name.
  const ALIKE = { "input[type=checkbox]": MOST, "details > summary": MOST };
  const KINDS = { "input[type=checkbox]": "boxes", "details > summary": "parts" };
  document.querySelector("button[name=more]")?.click();
  for (const [selector, operate] of Object.entries(kinds)) {
    const seen = [...all(selector).entries()].filter(([, one]) => one.checkVisibility()).slice(0, ALIKE[selector]);
    // Names now: the elements are soon others.
    const named = seen.map(([at, one]) => [at, seen.length > 3 && !one.closest("thead") ? KINDS[selector] ?? nameOf(one) : nameOf(one)]);
    for (const [at, name] of named) if (all(selector)[at]) await operate(() => all(selector)[at], name);
  }
  return [...found];
}
