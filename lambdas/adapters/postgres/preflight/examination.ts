/** What a table must be, judged by the text that the engine judges registrations by, whether it is installed or not. */
import type pg from 'pg';
import { about, type Criterion } from '../../../core/gates/judgement.ts';
import { type Target, targetName } from '../../../core/plan/settings.ts';
import { readSql } from '../migrations.ts';

/** Every line, met or not; one that is not met says in `expected` what to do. Reads catalogs alone. */
export async function examineTable(client: pg.ClientBase, target: Target): Promise<Criterion[]> {
  const { canary: _, ...registration } = target;
  const { rows } = await client.query(await examinationText(), [registration]);
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

/** The body of encryption_rollout.examine. */
async function examinationText(): Promise<string> {
  const [, text] = (await readSql('021_examination.sql')).split('$examination$');
  if (text === undefined) throw new Error('021_examination.sql has no text between $examination$ marks');
  return text;
}
