/** Whether the database server would show keys or personal data to others than those it should. Pure. */
import type { Criterion } from './payloads.ts';

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
  readonly foreignCode: readonly { readonly finding: string; readonly fix: string }[];
}

/**
 * Settings that log parameters or plans of statements inside functions: the keys are among them while rows are sealed.
 * What clients send holds no key, so log_statement, log_min_duration_statement and log_parameter_max_length may be anything.
 * https://www.postgresql.org/docs/current/auto-explain.html, https://github.com/pgaudit/pgaudit#settings
 */
const leaks: readonly { name: string; unless?: (settings: readonly ServerSetting[]) => boolean }[] = [
  {
    name: 'auto_explain.log_nested_statements',
    unless: (settings) =>
      settings
        .filter(({ name }) => name === 'auto_explain.log_min_duration')
        .every(({ value }) => value === '-1'),
  },
  {
    name: 'pgaudit.log_parameter',
    unless: (settings) =>
      settings.filter(({ name }) => name === 'pgaudit.log').every(({ value }) => /^(none)?$/i.test(value)),
  },
  { name: 'debug_print_plan' },
];

/** Names of the settings that are judged. */
export const judgedSettings = [
  ...leaks.map(({ name }) => name),
  'auto_explain.log_min_duration',
  'pgaudit.log',
];

/** One criterion on the server's logging and one on the code that runs with the engine's rights. */
export function exposureCriteria({ settings, foreignCode }: Exposure): Criterion[] {
  const active = leaks.filter(({ unless }) => !unless?.(settings)).map(({ name }) => name);
  const relevant = settings.filter(({ name }) => active.includes(name));
  const on = relevant.filter(({ value }) => /^(on|true|t|yes|y|1)$/i.test(value));
  const unknown = relevant.filter(({ scope }) => scope === 'ours');
  const found = [
    ...on.map(({ name, scope }) => `${name} is on ${scopeInWords(scope)}`),
    ...unknown.map(
      ({ name }) => `${name} is set for our role alone, so the application's sessions may differ`,
    ),
  ];
  const fixes = [...new Set([...on, ...unknown].map(({ name }) => name))].map(
    (name) => `set ${name} = off on the server, and for no role otherwise`,
  );
  return [
    {
      name: 'Server log keeps secrets',
      expected: `no setting that logs what functions compute${fixes.length > 0 ? `: ${fixes.join('; ')}` : ''}`,
      measured: found.join('; ') || 'none',
      passed: on.length > 0 ? false : unknown.length > 0 ? null : true,
    },
    {
      name: 'No foreign code in batches',
      expected: `triggers of the table's owner alone${foreignCode.length > 0 ? `: ${foreignCode.map(({ fix }) => fix).join(' ')}` : ''}`,
      measured: foreignCode.map(({ finding }) => finding).join('; ') || 'none',
      passed: foreignCode.length === 0,
    },
  ];
}

function scopeInWords(scope: string): string {
  if (scope === 'server') return 'for every session';
  return scope === 'ours' ? 'for our role' : `for ${scope}`;
}
