import { describe, expect, test } from 'vitest';
import { Targets } from '../../../../lambdas/core/plan/settings.ts';

const users = { table: 'users', columns: ['email'], canary: { email: 'Canary@Example.com' } };
const problems = (given: unknown) => {
  const { error } = Targets.safeParse(given);
  return (error?.issues ?? []).map(({ path, message }) => [path.join('.'), message]);
};

describe('the targets of a deployment', () => {
  test('are the sample table when nothing is said of one', () => {
    expect(Targets.parse([{}])).toMatchObject([
      {
        schema: 'public',
        table: 'appointments',
        key: ['id'],
        columns: ['email', 'e164', 'first_name'],
        trigger: 'encrypt_appointment_pii',
        createdAt: 'created_at',
        suffix: '_encrypted',
        ivColumn: 'pii_iv',
        adoptColumns: false,
        priority: null,
        canary: { email: 'Canary@Example.com' },
      },
    ]);
  });

  test('of any other table have nothing of the sample but what fits all', () => {
    expect(Targets.parse([users])).toEqual([
      {
        ...users,
        schema: 'public',
        key: ['id'],
        trigger: 'encrypt_users_pii',
        createdAt: 'created_at',
        suffix: '_encrypted',
        ivColumn: 'pii_iv',
        adoptColumns: false,
        priority: null,
      },
    ]);
    const given = {
      ...users,
      schema: 'sales',
      key: ['tenant', 'number'],
      trigger: 'seal',
      suffix: '_sealed',
      ivColumn: 'sealed_iv',
      adoptColumns: true,
    };
    expect(Targets.parse([{ ...given, createdAt: null }])).toEqual([
      { ...given, createdAt: null, priority: null },
    ]);
  });

  test.each<[string, unknown, [string, string][]]>([
    [
      'another table without columns and canary',
      [{}, { table: 'users' }],
      [
        ['1.columns', 'expected the columns with personal data of public.users'],
        [
          '1.canary',
          'expected the values of a row that can be inserted, and is rolled back, of public.users',
        ],
      ],
    ],
    [
      'the sample’s name in another schema',
      [{ schema: 'sales', canary: {} }],
      [['0.columns', 'expected the columns with personal data of sales.appointments']],
    ],
    ['a table twice', [users, { ...users, columns: ['e164'] }], [['', 'expected each table once']]],
    ['no table', [], [['', 'expected at least one table']]],
    [
      'a column twice',
      [{ ...users, columns: ['email', 'email'] }],
      [['0.columns', 'expected each column once']],
    ],
    ['a part of the key twice', [{ ...users, key: ['a', 'a'] }], [['0.key', 'expected each column once']]],
    [
      'a priority that is no condition',
      [{ ...users, priority: 'true; drop table users' }],
      [['0.priority', 'found a semicolon, expected one SQL condition, like is_vip']],
    ],
  ])('are refused: %s', (_, given, expected) => {
    expect(problems(given)).toEqual(expected);
  });

  test('may have the same name in two schemas', () => {
    expect(problems([users, { ...users, schema: 'sales' }])).toEqual([]);
  });
});
