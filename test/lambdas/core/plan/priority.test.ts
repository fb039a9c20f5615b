import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseInput } from '../../../../lambdas/core/plan/input.ts';
import { priorityProblem } from '../../../../lambdas/core/plan/priority.ts';

describe('a priority condition', () => {
  test.each([
    'is_vip',
    "status = 'pending' and start_at < now() + interval '2 days'",
    'note ~ \'a;b--c)\' or "odd;name)" is null',
    "first_name = 'O''Brien'",
    '(a or (b and c)) and d / 2 - 1 > 0',
    "Email like 'U%' or Unit = 'E' or e164 is null",
  ])('is accepted: %s', (text) => {
    expect(priorityProblem(text)).toBe('');
  });

  test.each([
    ['true); drop table appointments; select (true', /semicolon|closes nothing/],
    ['true) or (true', /closes nothing/],
    ['(true', /never closed/],
    ['true -- the rest', /comment/],
    ['true /* the rest', /comment/],
    ["'unfinished", /does not end/],
    ['"unfinished', /does not end/],
    ['$$a$$ = note', /plain quotes/],
    ["note = E'\\'') ; drop table x'", /plain quotes/],
    ["note = U&'\\0027'", /plain quotes/],
  ])('is refused: %s', (text, problem) => {
    expect(priorityProblem(text)).toMatch(problem);
  });

  test('whatever is accepted has balanced parentheses outside of quotes, and no semicolon', () => {
    const piece = fc.constantFrom(
      'a',
      '(',
      ')',
      "'",
      "''",
      '"',
      ';',
      '--',
      '/*',
      '$',
      '\\',
      "E'",
      "e'",
      ' ',
      '-',
      '/',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const text = pieces.join('');
        if (priorityProblem(text) !== '') return;
        const bare = text.replace(/'(?:[^']|'')*'|"(?:[^"]|"")*"/g, '');
        expect(bare).not.toMatch(/['";$\\]|--|\/\*/);
        let depth = 0;
        for (const character of bare) {
          depth += character === '(' ? 1 : character === ')' ? -1 : 0;
          expect(depth).toBeGreaterThanOrEqual(0);
        }
        expect(depth).toBe(0);
      }),
    );
  });
});

describe('the input of an execution', () => {
  test('may be empty', () => {
    expect(parseInput({})).toMatchObject({ dryRun: false, untilPhase: 5 });
  });

  test.each<[unknown, RegExp]>([
    [{ untilPhase: 6 }, /untilPhase/],
    [{ dryRun: 'yes' }, /dryRun/],
    [{ priority: 'true) or (true' }, /priority: found a parenthesis/],
    [{ priority: '' }, /priority/],
    [{ acknowledgedTriggers: 'audit' }, /acknowledgedTriggers/],
    [{ attestations: { nobody: 'x' } }, /attestations\.nobody/],
    [{ dryrun: true }, /dryrun/],
    ['{}', /input/],
  ])('is refused with the name of the field: %j', (input, message) => {
    expect(() => parseInput(input)).toThrow(message);
  });
});
