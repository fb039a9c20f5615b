/**
 * What others wrote (names of sessions, tables, alarms and people; reasons; statements) is text wherever it is shown: it makes no
 * line, no link, no markup, nor anything that a reader does not see. A record is made safe as a whole, where a message begins
 * to be written of it, so that no piece of it can be forgotten. Pure.
 */

/**
 * Nobody sees it, or it moves what is seen: controls (line breaks, escapes of terminals), marks of direction, separators of lines
 * and paragraphs, what Unicode does not assign. But not the two joiners, which some scripts need inside of words.
 */
const invisible = /(?![\u200c\u200d])[\p{C}\p{Zl}\p{Zp}]/gu;

/** What programs make links of by themselves. */
const linkBegins = /(?<=\b[a-z][a-z\d+.-]*):(?=\/\/)|(?<=\b(?:mailto|tel)):|(?<=\bwww)\./gi;

/** In one line, with what is not to be seen as `\u{a}`: for terminals. */
export function visible(text: string): string {
  return text.replace(invisible, (found) => `\\u{${found.codePointAt(0)?.toString(16)}}`);
}

/** Visible, and no link: for pages, updates and causes, which are plain text. */
export function plain(text: string): string {
  return visible(text).replace(linkBegins, '[$&]');
}

/** Plain, and no markup, inside of a line of GitHub's Markdown. */
export function inMarkdown(text: string): string {
  return plain(text).replace(/[\\`*[\]<>|~#&]|(?<![\p{L}\p{N}])_|_(?![\p{L}\p{N}])/gu, '\\$&');
}

const escapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** No markup, inside of an element or of an attribute in quotes. */
export function inHtml(text: string): string {
  return text.replace(/[&<>"']/g, (found) => escapes[found] ?? '');
}

/** Every string of a record made safe, however deep it lies; what is no data (dates, functions) stays as it is. */
export function textOf<T>(record: T, safe: (text: string) => string = plain): T {
  const made = (value: unknown): unknown => {
    if (typeof value === 'string') return safe(value);
    if (Array.isArray(value)) return value.map(made);
    if (value === null || typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype)
      return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [safe(name), made(each)]));
  };
  return made(record) as T;
}

/** The screen of a terminal: line breaks and colours are ours. */
export function onScreen(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the escapes of colours are what is kept
  return text.replace(/(\u001b\[\d+m|\n)|[^\u001b\n]+|\u001b/g, (found, ours) => ours ?? visible(found));
}

/** As much of the text as so many bytes of UTF-8 hold, and a sign of what is missing. */
export function within(bytes: number, text: string): string {
  const encoded = new TextEncoder().encode(text);
  if (encoded.length <= bytes) return text;
  // A character that was cut in two is no character.
  const kept = new TextDecoder().decode(encoded.slice(0, bytes - ' …'.length * 2), { stream: true });
  return `${kept} …`;
}
