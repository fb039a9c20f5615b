import { expect, test } from 'vitest';
import { boundaryCriterion } from '../../../../lambdas/core/gates/criteria.ts';
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

test('the criterion of the boundary lists them, whether it holds or not', () => {
  expect(boundaryCriterion([], [owner, nobody])).toMatchObject({
    passed: true,
    measured: 'holds; owner: rollout; reader: nobody',
  });
  const breach = { finding: 'app has SELECT on table t', fix: 'revoke select on table t from app cascade;' };
  expect(boundaryCriterion([breach], [nobody])).toMatchObject({
    passed: false,
    measured: 'app has SELECT on table t; reader: nobody',
  });
  expect(boundaryCriterion([], [])).toMatchObject({ measured: 'holds' });
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
