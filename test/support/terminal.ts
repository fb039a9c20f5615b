/** A terminal: what a person sees of what a program writes to it. It knows what the program may write, and nothing more. */
import { spawnSync } from 'node:child_process';

/** Whether util-linux's `script` is here, which makes a terminal of its own without a native module. */
export const hasTerminals =
  spawnSync('script', ['--version']).stdout?.toString().includes('util-linux') === true;

/** What was in the window before each time that it was drawn anew, and in the end. */
export function framesOf(output: string, columns: number, rows: number): string[] {
  const screen = new Screen(columns, rows);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what moves the cursor up
  return output.split(/(?=\u001b\[\d+A)/).map((drawn) => {
    screen.write(drawn);
    return screen.text;
  });
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
const sequence = /^\u001b\[(.*)(.)$/;
/** A sequence, or a letter. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above
const pieces = /\u001b\[[\d;?]*[A-Za-z]|[\s\S]/gu;

/** A window of a terminal, empty at first. */
export class Screen {
  readonly #columns: number;
  readonly #rows: number;
  #lines: string[] = [''];
  #row = 0;
  #column = 0;
  #cut = '';

  constructor(columns: number, rows: number) {
    this.#columns = columns;
    this.#rows = rows;
  }

  /** What is in the window; what has scrolled out of it is not. */
  get text(): string {
    return this.#lines
      .slice(-this.#rows)
      .map((line) => line.trimEnd())
      .join('\n');
  }

  /** A sequence that is cut off waits for the rest. @throws when it does not know one */
  write(text: string): void {
    let taken = 0;
    const all = this.#cut + text;
    for (const { 0: token, index } of all.matchAll(pieces)) {
      if (token === '\u001b') break;
      this.#take(token);
      taken = index + token.length;
    }
    this.#cut = all.slice(taken);
  }

  #take(token: string): void {
    const [, argument = '', command] = sequence.exec(token) ?? [];
    if (command !== undefined) this.#obey(command, argument);
    else if (token === '\r') this.#column = 0;
    else if (token === '\n') this.#down();
    else this.#put(token);
  }

  #obey(command: string, argument: string): void {
    const first = Math.max(0, this.#lines.length - this.#rows);
    switch (command) {
      case 'A':
        // No further up than the window goes.
        this.#row = Math.max(first, this.#row - Number(argument || 1));
        return;
      case 'J':
        if (argument === '2') this.#lines.fill('', first);
        else {
          this.#lines.length = this.#row + 1;
          this.#lines[this.#row] = this.#line.slice(0, this.#column);
        }
        return;
      case 'H':
        this.#row = first;
        this.#column = 0;
        return;
      // Colours.
      case 'm':
        return;
      default:
        throw new Error(`A sequence that this terminal does not know: ${JSON.stringify(command)}`);
    }
  }

  #put(letter: string): void {
    if (this.#column === this.#columns) {
      this.#down();
      this.#column = 0;
    }
    this.#lines[this.#row] =
      `${this.#line.slice(0, this.#column).padEnd(this.#column)}${letter}${this.#line.slice(this.#column + 1)}`;
    this.#column += 1;
  }

  get #line(): string {
    return this.#lines[this.#row] ?? '';
  }

  #down(): void {
    this.#row += 1;
    this.#lines[this.#row] ??= '';
  }
}
