/** The tables of the shapes, and the statements of their application. */
import { type Target, targetName } from '../../../lambdas/core/plan/settings.ts';
import { columnName, columns, type Key, type Kind, keyColumns, keys, tableKinds } from './definitions.ts';

export interface Shape {
  readonly key: Key;
  readonly kind: Kind;
  /** As SQL has it. */
  readonly table: string;
  readonly target: Pick<Target, 'schema' | 'table' | 'key' | 'columns' | 'trigger'>;
  readonly name: string;
}

const unquoted = (name: string) => name.replace(/^"|"$/g, '').replaceAll('""', '"');

function shapeOf(key: Key, kind: Kind, index: number): Shape {
  const table = kind.table(`shape_${index}`);
  const [schema = '', ...rest] = table.split('.');
  const target = {
    schema: unquoted(schema),
    table: unquoted(rest.join('.')),
    key: [...keyColumns(key)],
    columns: columns.map((_, n) => columnName(n)),
    trigger: 'encrypt_shape',
  };
  return { key, kind, table, target, name: targetName(target) };
}

export const [ordinary] = tableKinds as [Kind, ...Kind[]];
const otherKinds = tableKinds.slice(1);
const ofTwo = keys.filter((key) => key === keys[0] || key.name.startsWith('kinds.citext, bigint'));
/** Every key in an ordinary table; every other kind of table with a key of one column and with one of several. */
export const shapes = [
  ...keys.map((key) => [key, ordinary] as const),
  ...otherKinds.flatMap((kind) => ofTwo.map((key) => [key, kind] as const)),
].map(([key, kind], index) => shapeOf(key, kind, index));

/** SQL of what is in the n-th column of row n + shift. */
const personalValue = (index: number, shift: number) => {
  const { type, values } = columns[index] as (typeof columns)[number];
  const cases = values.map((value, n) => `when ${n} then (${value})::${type}`).join(' ');
  return `case (n + ${index + shift}) % ${values.length + 1} ${cases} end`;
};

export function createTable({ key, kind, table }: Shape): string {
  const own = Object.entries(key.columns).map(([name, type]) => `${name} ${type}`);
  const personal = columns.map(({ type }, index) => `${columnName(index)} ${type}`);
  const constraint = key.constraint ?? `primary key (${keyColumns(key).join(', ')})`;
  return kind.create(
    table,
    ['n integer', ...own, ...personal].join(', '),
    `alter table ${table} add ${constraint}`,
  );
}

export function insertRows({ key, table }: Shape, from: number, to: number): string {
  const names = ['n', ...Object.keys(key.columns), ...columns.map((_, index) => columnName(index))];
  const values = ['n', ...key.values, ...columns.map((_, index) => personalValue(index, 0))];
  return `insert into ${table} (${names}) select ${values.join(', ')} from generate_series(${from}, ${to}) as n`;
}

/** Other values in two rows; another key for a third. */
export function editRows({ key, table }: Shape, first: number): string {
  const values = columns.map((_, index) => `${columnName(index)} = ${personalValue(index, 1)}`);
  const moved = Object.keys(key.columns).map((name, index) => {
    const value = (key.values[index] as string).replace(/\bn\b/g, `(n + 20)`);
    return `${name} = ${value}`;
  });
  return `update ${table} set ${values} where n in (${first}, ${first + 1}); update ${table} set ${moved} where n = ${first + 2}`;
}
