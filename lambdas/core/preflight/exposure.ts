/** Whether the database server would show keys or personal data to others than those it should. Pure. */
import { type Breach, boundaryCriteria } from '../gates/criteria.ts';
import { type Criterion, sentence } from '../gates/judgement.ts';
import type { RoleMembers } from './members.ts';

/** A setting of PostgreSQL that logs what our functions compute inside the database, as one scope has it. */
export interface ServerSetting {
  readonly name: string;
  readonly value: string;
  /**
   * `server`: what every session begins with. `ours`: for our role alone, so that what other sessions have is not known.
   * Otherwise in words, e.g. `role app`: that role's sessions have this value.
   */
  readonly scope: string;
}

export interface Exposure {
  readonly settings: readonly ServerSetting[];
  /** Code of other roles that would run with the engine's rights, each with the statement that ends it. */
  readonly foreignCode: readonly Breach[];
  /** What else breaks the boundary; nothing, where there is no engine yet. */
  readonly breaches: readonly Breach[];
  /** Of the engine's roles; nobody, where there is no engine yet. */
  readonly members: readonly RoleMembers[];
}

const isOn = (value: string) => /^(on|true|t|yes|y|1)$/i.test(value);

interface Leak {
  readonly name: string;
  readonly isUnsafe: (value: string) => boolean;
  readonly safe: string;
  /** Harmless while these settings of the same extension have nowhere any other value. */
  readonly unless?: readonly { readonly name: string; readonly isIdle: (value: string) => boolean }[];
}

const autoExplain = [{ name: 'auto_explain.log_min_duration', isIdle: (value: string) => value === '-1' }];
const pgaudit = [
  { name: 'pgaudit.log', isIdle: (value: string) => /^(none)?$/i.test(value) },
  // What this role may touch is audited whatever pgaudit.log says.
  { name: 'pgaudit.role', isIdle: (value: string) => value === '' },
];

/**
 * Settings that log parameters, or plans with their constants, of statements inside functions: the keys are among them
 * while rows are sealed. What clients send holds no key, so log_statement, log_min_duration_statement and
 * log_parameter_max_length may be anything. auto_explain takes statements in a trigger for top-level ones when COPY
 * fires it, so log_nested_statements makes no difference.
 * https://www.postgresql.org/docs/current/auto-explain.html, https://github.com/pgaudit/pgaudit#settings
 */
const leaks: readonly Leak[] = [
  { name: 'auto_explain.log_verbose', isUnsafe: isOn, safe: 'off', unless: autoExplain },
  {
    name: 'auto_explain.log_parameter_max_length',
    isUnsafe: (value) => !/^0\s*[a-z]*$/i.test(value),
    safe: '0',
    unless: autoExplain,
  },
  { name: 'pgaudit.log_parameter', isUnsafe: isOn, safe: 'off', unless: pgaudit },
  // Ours switch it off for themselves. What it prints of everybody else's statements has their constants.
  { name: 'debug_print_plan', isUnsafe: isOn, safe: 'off' },
];

/** Names of the settings that are judged. */
export const judgedSettings = [...leaks, ...autoExplain, ...pgaudit].map(({ name }) => name);

/** On the server's logging, on the code that runs with the engine's rights, and on the boundary. */
export function exposureCriteria({ settings, foreignCode, breaches, members }: Exposure): Criterion[] {
  const valuesOf = (wanted: string) => settings.filter(({ name }) => name === wanted);
  const active = leaks.filter(
    ({ unless }) =>
      !unless || unless.some(({ name, isIdle }) => valuesOf(name).some(({ value }) => !isIdle(value))),
  );
  const unsafe = active.flatMap(({ name, isUnsafe }) =>
    valuesOf(name).filter(({ value }) => isUnsafe(value)),
  );
  const unknown = active.flatMap(({ name }) => valuesOf(name).filter(({ scope }) => scope === 'ours'));
  const found = [
    ...unsafe.map(({ name, value, scope }) => `${name} is ${value} ${scopeInWords(scope)}`),
    ...unknown.map(({ name }) => `${name} is set for our role alone, so other sessions may differ`),
  ];
  const fixes = active
    .filter((leak) => [...unsafe, ...unknown].some(({ name }) => name === leak.name))
    .map(({ name, safe }) => `set ${name} = ${safe} on the server, and for no role otherwise`);
  return [
    {
      name: 'Server log keeps secrets',
      expected: 'no setting that logs what functions compute',
      measured: found.join('; ') || 'no such setting',
      passed: unsafe.length > 0 ? false : unknown.length > 0 ? null : true,
      ...(fixes.length === 0 ? {} : { advice: sentence(fixes.join('; ')) }),
    },
    {
      name: 'No foreign code in batches',
      expected: "functions of the table's owner alone, wherever the table calls any",
      measured: foreignCode.map(({ finding }) => finding).join('; ') || 'there is none',
      passed: foreignCode.length === 0,
      ...(foreignCode.length === 0 ? {} : { advice: foreignCode.map(({ fix }) => fix).join(' ') }),
    },
    ...boundaryCriteria(breaches, members),
  ];
}

function scopeInWords(scope: string): string {
  if (scope === 'server') return 'for every session';
  return scope === 'ours' ? 'for our role' : `for ${scope}`;
}
