/** Subjects of messages: on a locked phone they are all that is seen. Pure. */
import { plain } from './text.ts';

/** SNS takes less than 100 characters, and refuses a message whose subject has others than these. */
const characters = 99;

/** What a subject says, in this order. */
export interface Subject {
  readonly stack: string;
  /** What has happened: `stopped`. */
  readonly what: string;
  /** `<schema>.<table>` of each that is meant; more than one are counted. */
  readonly tables: readonly string[];
  readonly phase?: number | undefined;
  /** What it is about, in a few words. */
  readonly about?: string;
}

/** `Payments: stopped: public.users, phase 2: Missing IVs`, in ASCII, in one line, cut at its end. */
export function subjectOf({ stack, what, tables, phase, about }: Subject): string {
  const [first, ...more] = tables;
  const where = [
    ...(first === undefined ? [] : [more.length === 0 ? first : `${first} and ${more.length} more`]),
    ...(phase === undefined ? [] : [`phase ${phase}`]),
  ].join(', ');
  const parts = [stack, what, where, about ?? ''].filter((part) => part !== '');
  return fitting(parts.join(': '));
}

function fitting(text: string): string {
  const ascii = plain(text)
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .replace(/[^ -~]/g, '?');
  return ascii.length <= characters ? ascii : `${ascii.slice(0, characters - 3)}...`;
}
