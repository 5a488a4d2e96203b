// Figures as text, for all scripts. Python's units.py and site/formats.py have the same rules.
"use strict";

window.tokrig = window.tokrig || {};

{
  const NULL = "–";
  const isKnown = (value) => value !== null && value !== undefined;
  const decimals = (value) => (value >= 1000 ? 0 : value >= 10 ? 1 : 2);
  const grouped = (digits) => digits.replace(/\B(?=(\d{3})+(?!\d))/g, ",");

  /** ``61.2``, ``1,204``. Above 1,000 there are no decimals, so commas never get behind a point. */
  const rate = (value) => (isKnown(value) ? grouped(value.toFixed(decimals(value))) : NULL);

  /** ``206.5–216.7``, or one value where both read the same. */
  const span = (low, high) => (rate(low) === rate(high) ? rate(low) : `${rate(low)}–${rate(high)}`);

  /** ``1 result``, ``8 results``. */
  const count = (number, thing) => `${grouped(String(number))} ${thing}${number === 1 ? "" : "s"}`;

  /** ``4.20 ms``, ``210 ms``, ``1.73 s``, ``2 min 05 s``. */
  const time = (s) => {
    if (!isKnown(s)) return NULL;
    const ms = 1000 * s;
    if (ms < 10) return `${ms.toFixed(2)} ms`;
    if (ms < 999.5) return `${ms.toFixed(0)} ms`;
    if (ms < 60000) return `${(ms / 1000).toFixed(2)} s`;
    const seconds = Math.round(ms / 1000);
    return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, "0")} s`;
  };

  /** ``4.4 GB``, ``91 MB``: of a thousand each, as files are named by people. */
  const gigabytes = (bytes) => {
    if (!isKnown(bytes)) return NULL;
    const size = bytes / 1e9;
    if (bytes < 10_000) return `${bytes} B`;
    if (size < 0.095) return `${(1000 * size).toFixed(size >= 0.01 ? 0 : 2)} MB`;
    return `${size >= 100 ? size.toFixed(0) : size >= 1 ? size.toFixed(1) : size.toFixed(2)} GB`;
  };

  /** A name in which no line breaks between a memory's number and its unit. */
  const unbroken = (name) => name.replace(/(\d) (?=[GMT]B\b)/g, "$1\u00a0");

  /** ``7.6 B``, ``270 M``: parameters. */
  const parameters = (number) => {
    if (!isKnown(number)) return NULL;
    if (number >= 1e9) return `${Number((number / 1e9).toPrecision(3))} B`;
    return number >= 1e6 ? `${Number((number / 1e6).toPrecision(3))} M` : grouped(String(number));
  };

  const placeOf = (shape) => {
    const place = tokrig.shapes.indexOf(shape.split(/ at depth |, /, 1)[0]);
    return place < 0 ? tokrig.shapes.length : place;
  };
  /** To sort shapes by, as Python's naming.shape_order; one of them by its depths. */
  const byShape = (one, other) => placeOf(one) - placeOf(other) || one.localeCompare(other, "en", { numeric: true });

  /** A mark, which explains itself by the sentence of its word. */
  const mark = (kind, label, word = label) =>
    tokrig.make("span", { class: `mark ${kind}`, title: tokrig.definitions?.[`mark.${word}`] }, label);

  tokrig.words = { NULL, byShape, count, gigabytes, isKnown, mark, parameters, rate, span, time, unbroken };
}
