/** What a table must be, judged by the text that the engine judges registrations by, whether it is installed or not. */
import type pg from 'pg';
import { about, type Criterion } from '../../../core/gates/judgement.ts';
import { type Target, targetName } from '../../../core/plan/settings.ts';
import { readSqlBody } from '../migrations.ts';

/** Every line, met or not; one that is not met says in `expected` what to do. Reads catalogs alone. */
export async function examineTable(client: pg.ClientBase, target: Target): Promise<Criterion[]> {
  const { canary: _, ...registration } = target;
  // The body of encryption_rollout.examine.
  const { rows } = await client.query(await readSqlBody('021_examination.sql', 'examination'), [
    registration,
  ]);
  return about(
    targetName(target),
    rows.map(({ name, expected, measured, problem, hint }) => ({
      name,
      expected: problem === null ? expected : `${expected}. ${hint}`,
      measured,
      passed: problem === null,
    })),
  );
}
