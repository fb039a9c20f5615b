/** From criteria to a verdict. Pure. A value that could not be measured is `null` and never counts as health. */
import { bounded } from '../errors.ts';
import { fitting } from '../telling/message-size.ts';

/** One line of a gate. `passed: null` = could not be measured. */
export interface Criterion {
  readonly name: string;
  /** The table that it is about, `<schema>.<table>`; left out of what concerns them all. */
  readonly table?: string;
  readonly expected: string;
  readonly measured: string;
  readonly passed: boolean | null;
  /** Sentences: what to do about one that did not pass, where that is known. */
  readonly advice?: string;
}

export type Verdict = 'GO' | 'NO_GO' | 'INCONCLUSIVE';

/** Result of Preflight and Gate; `reason` is one sentence that names the gate and the criteria not passed, as far as a cause holds them. */
export interface Judgement {
  readonly gate: string;
  readonly verdict: Verdict;
  readonly reason: string;
  readonly criteria: readonly Criterion[];
  /** Lines that are not among them, for want of room: see handedOn. */
  readonly leftOut?: number;
}

export function criterion(
  name: string,
  expected: string,
  measured: string,
  passed: boolean | null,
): Criterion {
  return { name, expected, measured, passed };
}

/** The same criteria, about this table. */
export function about(table: string, criteria: readonly Criterion[]): Criterion[] {
  return criteria.map((each) => ({ ...each, table }));
}

/** What a criterion is called where several are listed: `public.users: Missing IVs`. */
export function labelOf({ name, table }: Pick<Criterion, 'name' | 'table'>): string {
  return table === undefined ? name : `${table}: ${name}`;
}

export function none(name: string, count: number): Criterion {
  return criterion(name, '0', number.format(count), count === 0);
}

export const number = new Intl.NumberFormat('en-US', { maximumFractionDigits: 2 });

/** `1 row`, `12,345 rows` */
export function counted(count: number, one: string, more = `${one}s`): string {
  return `${number.format(count)} ${count === 1 ? one : more}`;
}

/** So many names; the others are counted: `a, b and 1,234 more`. */
export function named(names: readonly string[], most: number): string {
  const more = names.length - most;
  return `${names.slice(0, most).join(', ')}${more > 0 ? ` and ${number.format(more)} more` : ''}`;
}

/**
 * `public.users`, `public.users and public.orders`, `5 tables: public.users, …`, `50 tables: public.users, … and 40 more`.
 * @param most names; AWS takes 2,048 characters of a description
 */
export function tablesInWords(names: readonly string[], most = 10): string {
  if (names.length <= 2) return names.join(' and ');
  return `${names.length} tables: ${named(names, most)}`;
}

/** With a full stop at its end, once. */
export function sentence(text: string): string {
  return text.replace(/\.?$/, '.');
}

/** A judgement's reason where its gate is named already: it begins with it. */
export function withoutGate(gate: string, reason: string): string {
  return reason.startsWith(`${gate}: `) ? reason.slice(gate.length + 2) : reason;
}

/** `expected …, measured …`, and what to do. `between`: what stands between both. */
export function expectedAndMeasured({ expected, measured, advice }: Criterion, between = ', '): string {
  return `expected ${expected}${between}measured ${measured}${advice ? ` (${advice.replace(/[.;]$/, '')})` : ''}`;
}

/** What is told of a line that stands under its name: found, and unless that is well, what was expected and what to do. */
export function measuredOnScreen({ expected, measured, passed, advice }: Criterion): string {
  if (passed === true) return measured;
  return `${measured} (expected: ${expected})${advice ? `. ${advice}` : ''}`;
}

/** NO_GO when any criterion failed, otherwise INCONCLUSIVE when any could not be measured, otherwise GO. */
export function judge(gate: string, criteria: readonly Criterion[]): Judgement {
  const failed = criteria.filter(({ passed }) => passed === false);
  const unknown = criteria.filter(({ passed }) => passed === null);
  const verdict: Verdict = failed.length > 0 ? 'NO_GO' : unknown.length > 0 ? 'INCONCLUSIVE' : 'GO';
  const listed = (failed.length > 0 ? failed : unknown)
    .map((each) => `${labelOf(each)}: ${expectedAndMeasured(each)}`)
    .join('; ');
  return {
    gate,
    verdict,
    reason:
      verdict === 'GO' ? `${gate}: all ${criteria.length} criteria passed` : bounded(`${gate}: ${listed}`),
    criteria,
  };
}

/** Of the lines of a judgement, as JSON in UTF-8: the data of a state holds 256 KiB, and other things lie beside them. */
const HANDED_ON_BYTES = 40_000;

/**
 * The judgement as a state hands it on: with as many of its lines as there is room for, of many tables those that have not passed
 * first. The records have all of them.
 */
export function handedOn(judgement: Judgement, bytes = HANDED_ON_BYTES): Judgement {
  const { criteria } = judgement;
  if (fittingJson(criteria, bytes).length === criteria.length) return judgement;
  const urgent = [false, null, true].flatMap((passed) => criteria.filter((each) => each.passed === passed));
  const kept = fittingJson(urgent, bytes);
  return { ...judgement, criteria: kept, leftOut: criteria.length - kept.length };
}

/** As many of the items, from the first one on, as fit as JSON into so many bytes of UTF-8. */
export function fittingJson<Item>(items: readonly Item[], bytes: number): readonly Item[] {
  const texts = items.map((item) => JSON.stringify(item));
  return items.slice(0, fitting(texts, bytes));
}

/** One failed criterion, as a judgement: for a breach that is noticed in the middle of the work. */
export function breach(gate: string, failed: Omit<Criterion, 'passed'>): Judgement {
  return judge(gate, [{ ...failed, passed: false }]);
}
