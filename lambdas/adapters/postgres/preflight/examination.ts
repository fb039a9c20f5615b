/** What a table must be, judged by the text that the engine judges registrations by, whether it is installed or not. */
import type pg from 'pg';
import { about, type Criterion } from '../../../core/gates/judgement.ts';
import { type Target, targetName } from '../../../core/plan/settings.ts';
import { readSqlBody } from '../migrations.ts';

/** Every line, met or not; one that is not met says what to do. Reads catalogs alone. */
export async function examineTable(client: pg.ClientBase, target: Target): Promise<Criterion[]> {
  const { canary: _, ...registration } = target;
  // The body of encryption_rollout.examine.
  const { rows } = await client.query(await readSqlBody('022_examination.sql', 'examination'), [
    registration,
  ]);
  // What is no table has neither key nor columns to speak of.
  const whole = rows.filter(({ name, problem }) => name === 'Table' && problem !== null);
  return about(
    targetName(target),
    (whole.length > 0 ? whole : rows).map(({ name, expected, measured, problem, hint }) => ({
      name,
      expected,
      measured,
      passed: problem === null,
      ...(problem === null ? {} : { advice: hint }),
    })),
  );
}
