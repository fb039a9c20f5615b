import { describe, expect, test } from 'vitest';
import { askedOf } from '../../../../lambdas/core/plan/input.ts';
import { Targets, targetName } from '../../../../lambdas/core/plan/settings.ts';

const canary = { email: 'Canary@Example.com' };
const targets = Targets.parse([
  { priority: 'is_vip' },
  { table: 'users', columns: ['email'], canary, priority: 'is_member' },
  { schema: 'sales', table: 'orders', columns: ['email'], canary },
]);
const priorities = (input: unknown, of = targets) =>
  askedOf(input, of).targets.map((target) => [targetName(target), target.priority]);

describe('what an execution is asked', () => {
  test('is about all tables of the deployment, with its priorities, and carries the rest on', () => {
    const asked = askedOf({ untilPhase: 3, acknowledgedTriggers: ['audit'] }, targets);
    expect(asked).toEqual({
      dryRun: false,
      untilPhase: 3,
      acknowledgedTriggers: ['audit'],
      attestations: {},
      targets,
    });
  });

  test('may come from a machine of somebody else, which Step Functions has name itself', () => {
    const AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID =
      'arn:aws:states:eu-west-1:123456789012:execution:theirs:1';
    expect(askedOf({ untilPhase: 2, AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID }, targets)).toEqual(
      askedOf({ untilPhase: 2 }, targets),
    );
  });

  test('is about those that it names, in the order of the deployment', () => {
    expect(priorities({ tables: ['sales.orders', 'public.appointments'] })).toEqual([
      ['public.appointments', 'is_vip'],
      ['sales.orders', null],
    ]);
    expect(priorities({ tables: ['public.users', 'public.users'] })).toEqual([['public.users', 'is_member']]);
  });

  test('has a priority for each table that it names, and leaves those of the others', () => {
    const priority = { 'public.appointments': null, 'sales.orders': 'is_open' };
    expect(priorities({ priority })).toEqual([
      ['public.appointments', null],
      ['public.users', 'is_member'],
      ['sales.orders', 'is_open'],
    ]);
  });

  test('has one condition for one table, and null for all', () => {
    expect(priorities({ tables: ['public.users'], priority: 'is_new' })).toEqual([
      ['public.users', 'is_new'],
    ]);
    expect(priorities({ priority: 'is_new' }, targets.slice(0, 1))).toEqual([
      ['public.appointments', 'is_new'],
    ]);
    expect(priorities({ priority: null }).map(([, condition]) => condition)).toEqual([null, null, null]);
  });

  test.each<[unknown, string]>([
    [
      { tables: ['public.nobody'] },
      'tables: found "public.nobody", expected some of public.appointments, public.users, sales.orders, the tables of this deployment',
    ],
    [{ tables: [] }, 'tables: found [], expected at least one'],
    [{ tables: 'public.users' }, 'tables: found "public.users", expected array'],
    [
      { priority: 'is_vip' },
      'priority: found one condition for 3 tables, expected one for each that has any, like {"public.appointments": "is_vip"}',
    ],
    [
      { tables: ['public.users'], priority: { 'sales.orders': 'is_open' } },
      'priority: found the table "sales.orders", expected some of public.users',
    ],
    [
      { priority: { 'public.users': 'true) or (true' } },
      "priority: found a parenthesis that closes nothing, expected one SQL condition on the table's columns, like is_vip",
    ],
  ])('is refused with what was found and what is expected: %j', (input, message) => {
    expect(() => askedOf(input, targets)).toThrow(
      expect.objectContaining({
        name: 'InvalidInput',
        message: `The input of the execution is wrong: ${message}`,
      }),
    );
  });

  test('never repeats a condition that is refused: people write values into them', () => {
    const priority = { 'public.users': "email = 'jane.doe@example.com" };
    expect(() => askedOf({ priority }, targets)).toThrow(/a quotation that does not end/);
    expect(() => askedOf({ priority }, targets)).not.toThrow(/jane/);
  });
});
