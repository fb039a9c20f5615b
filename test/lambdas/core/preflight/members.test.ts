import { expect, test } from 'vitest';
import { boundaryCriteria } from '../../../../lambdas/core/gates/criteria.ts';
import { judge } from '../../../../lambdas/core/gates/judgement.ts';
import { membersChange, membersInWords } from '../../../../lambdas/core/preflight/members.ts';

const owner = { role: 'owner', members: ['rollout'] };
const nobody = { role: 'reader', members: [] };
const decryptor = (...members: string[]) => ({ role: 'decryptor', members });

test('members are told role by role, and of a large group not all', () => {
  expect(membersInWords([])).toBe('');
  expect(membersInWords([owner, decryptor('billing', 'support (through staff)'), nobody])).toBe(
    'owner: rollout; decryptor: billing, support (through staff); reader: nobody',
  );
  const many = Array.from({ length: 1_234 }, (_, n) => `m${n}`);
  expect(membersInWords([decryptor(...many)])).toMatch(/^decryptor: m0, m1, .*, m19 and 1,214 more$/);
});

test('they are listed beside the boundary, whether it holds or not', () => {
  const members = {
    name: "Members of the engine's roles",
    measured: 'owner: rollout; reader: nobody',
    passed: true,
  };
  expect(boundaryCriteria([], [owner, nobody])).toMatchObject([{ measured: 'holds', passed: true }, members]);
  const breach = { finding: 'app has SELECT on table t', fix: 'revoke select on table t from app cascade;' };
  expect(boundaryCriteria([breach], [owner, nobody])).toMatchObject([
    { measured: 'app has SELECT on table t', passed: false },
    members,
  ]);
  expect(boundaryCriteria([], [])).toHaveLength(1);
});

test('of however many no reason has any, and it says what to do', () => {
  const fix = 'revoke trigger on table public.users from app cascade;';
  const many = Array.from({ length: 25 }, (_, n) => `jane.doe.the.${n}th.of.her.name@example.com`);
  const roles = ['owner', 'operator', 'decryptor', 'reader'].map((role) => ({ role, members: many }));
  const { reason } = judge('Preflight', boundaryCriteria([{ finding: 'app has TRIGGER', fix }], roles));
  expect(reason).toContain(fix.slice(0, -1));
  expect(reason).not.toContain('jane.doe');
});

test('a change is who has come and who has gone', () => {
  expect(membersChange([owner, decryptor('a')], [owner, decryptor('a')])).toBeUndefined();
  expect(membersChange([owner, decryptor('a', 'b')], [owner, decryptor('b', 'c')])).toEqual({
    added: [decryptor('c')],
    removed: [decryptor('a')],
  });
  // Of a role that was not there before, or is not any more.
  expect(membersChange([owner], [decryptor('c'), nobody])).toEqual({
    added: [decryptor('c')],
    removed: [owner],
  });
  expect(membersChange([], [nobody])).toBeUndefined();
});
