/** A window, as far as the rehearsal draws in it. */

/** What a window shows, scrolled back included, after it was sent this text. However wide: what does not fit is seen. */
export function shown(sent: string): string {
  const lines: string[] = [''];
  let [row, column] = [0, 0];
  const at = () => lines[row] ?? '';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what a terminal is sent
  for (const [token, parameter = '', command] of sent.matchAll(/\u001b\[([?\d;]*)([A-Za-z])|[\s\S]/g)) {
    const count = Number(parameter) || 1;
    if (token === '\n') {
      row += 1;
      column = 0;
      lines[row] ??= '';
    } else if (token === '\r') column = 0;
    else if (command === undefined) {
      lines[row] = at().padEnd(column).slice(0, column) + token + at().slice(column + 1);
      column += 1;
    } else if (command === 'A') row = Math.max(0, row - count);
    else if (command === 'B') row = Math.min(lines.length - 1, row + count);
    else if (command === 'C') column += count;
    else if (command === 'D') column = Math.max(0, column - count);
    else if (command === 'G') column = count - 1;
    else if (command === 'K') lines[row] = parameter === '' || parameter === '0' ? at().slice(0, column) : '';
    else if (command === 'J') {
      lines[row] = at().slice(0, column);
      lines.length = row + 1;
    } else if (command !== 'm' && command !== 'h' && command !== 'l')
      throw new Error(`Found ${JSON.stringify(token)}, expected a sequence that this window knows.`);
  }
  return lines.map((line) => line.trimEnd()).join('\n');
}
