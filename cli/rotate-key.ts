/** `rotate-key`: a new key for a database whose keys are kept in a file. With AWS the state machine does it. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError } from 'commander';
import type pg from 'pg';
import type { EncryptionKeys } from '../lambdas/adapters/aws/secrets.ts';
import {
  encryptBatch,
  forgetFailedRows,
  readHealth,
  wholeTable,
} from '../lambdas/adapters/postgres/encryption/engine.ts';
import {
  currentCheckValue,
  keysInUse,
  putKeysInPlace,
  retireKeys,
  rotateKey,
} from '../lambdas/adapters/postgres/encryption/keys.ts';
import { politely } from '../lambdas/adapters/postgres/migrations.ts';
import { inTransaction } from '../lambdas/adapters/postgres/transaction.ts';
import { keyCheckValue } from '../lambdas/core/encryption/aead.ts';
import { counted, number } from '../lambdas/core/gates/judgement.ts';
import { confirmed, demandTerminal } from '../terminal/asking.ts';
import { connect, connectionOf, databaseUrlOption, UsageError } from '../terminal/connection.ts';
import { say } from '../terminal/telling.ts';
import { verify } from '../verifier/verify.ts';
import { readKeyFile, replaceKeyFile } from './key-file.ts';

/** Rows that a batch keeps locked until it commits: some 50 ms. */
const defaultBatchRows = 1_000;
/** Batches find nothing but locked rows: their owners get this long before the next look. */
const lockedPauseMilliseconds = 500;
/** A key may be in use by a transaction that is still open; each look takes up to two seconds. */
const retirementLooks = 10;
/** Exit code when a row does not open; as that of verify. */
const violationsFound = 3;

interface Flags {
  readonly databaseUrl?: string;
  readonly keyFile?: string;
  readonly batch: number;
  readonly yes?: true;
}

/** Adds `rotate-key` to the program. Its action sets the exit code: 0 done, 3 rows that do not open. */
export function addRotateKeyCommand(program: Command): void {
  program
    .command('rotate-key')
    .description('give the database a new random key and move every row to it, while it is in use')
    .option(...databaseUrlOption)
    .option('--key-file <file>', 'where the keys are kept; the new one is added before it is used')
    .option('--batch <rows>', 'rows that one transaction moves', rowsOf, defaultBatchRows)
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `
For a database whose key was made by install --generate-key; the file keeps the keys before the new one, for backups. Where a
rollout on AWS has run, put the new key into its
secret and start the state machine instead: docs/database.md.

Interrupted at any moment it does no harm: both keys stay valid, and the next call goes on from there.

Exit codes: 0 done, 3 a row does not open (both keys stay), 1 not finished; call it again.`,
    )
    .action(run);
}

function rowsOf(text: string): number {
  const rows = Number(text);
  if (!Number.isInteger(rows) || rows < 1 || rows > 100_000)
    throw new InvalidArgumentError('Expected a whole number from 1 to 100,000.');
  return rows;
}

async function run({ databaseUrl, keyFile, batch, yes }: Flags): Promise<void> {
  const connection = connectionOf(databaseUrl);
  if (keyFile === undefined)
    throw new UsageError('Found no --key-file, expected the file with the keys of this database.');
  const keys = readKeyFile(keyFile);
  const client = await connect(connection, 'encryption-rollout rotate-key');
  try {
    const [current, ...old] = await usableKeys(client);
    const isAhead = await inTransaction(client, () => putKeysInPlace(client, keys));
    const resuming = old.length > 0;
    const place = `${connection.host}:${connection.port}, database ${connection.database}`;
    // Told before anything is sealed anew: afterwards nobody can see that it was broken.
    if ((await readEveryRow(client)).violated)
      say(
        'Rotating seals every row anew from its plaintext. To see first which rows these are: npm run rollout -- verify --database-url URL',
      );
    if (!yes && !(await agreed(resuming ? current : isAhead ? keys.number : current + 1, resuming, place))) {
      say('Nothing was changed.');
      return;
    }
    if (resuming) say(`Rotation to key ${current} is under way: going on.`);
    else {
      // While somebody thought about the question, another call may have rotated: its key is in the file alone, and the server's memory.
      if (readKeyFile(keyFile).number !== keys.number || (await usableKeys(client))[0] !== current)
        throw new UsageError(
          `Found another key in ${keyFile}, or in the database, than before the question. Nothing was changed: start again.`,
        );
      // A call before this one may have been ended between the file and the database.
      const next = isAhead ? keys : addKey(keyFile, keys);
      await politely(client, async () => rotateKey(client, next, await currentCheckValue(client)));
      say(`Key ${next.number} is the current one: what is written from now on is sealed with it.`);
    }
    await moveAndRetire(client, batch);
  } finally {
    await client.end();
  }
}

/** Numbers of the keys in use, the current one first. @throws UsageError where this is not the way to rotate */
async function usableKeys(client: pg.Client): Promise<[number, ...number[]]> {
  const { rows } = await client.query(
    "select to_regclass('encryption_rollout.keys') is not null as installed",
  );
  const [current, ...old] = rows[0].installed ? await keysInUse(client) : [];
  if (current === undefined)
    throw new UsageError(
      'Found no encryption key in this database, so there is none to rotate. First: npm run rollout -- install --database-url URL --config FILE --generate-key KEYS',
    );
  const runs = await client.query(
    'select status from encryption_rollout.runs order by started_at desc limit 1',
  );
  if (runs.rows[0] !== undefined)
    throw new UsageError(
      `Found a rollout of this database (${runs.rows[0].status}): its key belongs to Secrets Manager, and one made here would be missing there. ` +
        'Put the new key into the secret, with the present one under "previous", and start the state machine.',
    );
  return [current, ...old];
}

async function agreed(number: number, resuming: boolean, place: string): Promise<boolean> {
  const what = resuming ? `Go on with the rotation to key ${number}` : `Make a new key ${number}`;
  demandTerminal(`${what} in ${place}? Every row is written once, also those not yet encrypted.`, '--yes');
  return confirmed(`${what} in ${place}, and write every row once, also those not yet encrypted?`, true);
}

/** The file has it before the database. */
function addKey(file: string, { number, key, previous }: EncryptionKeys): EncryptionKeys {
  replaceKeyFile(file, {
    number: number + 1,
    key: randomBytes(32),
    previous: [{ number, key, checkValue: keyCheckValue(key) }, ...previous],
  });
  return readKeyFile(file);
}

/** Until nothing is left under the keys before: rows move, all of it is verified, the keys are retired. */
async function moveAndRetire(client: pg.Client, batchRows: number): Promise<void> {
  for (let look = 1; ; look++) {
    let moved = 0;
    for (const target of await targets(client)) moved += await move(client, target, batchRows);
    if ((look === 1 || moved > 0) && !(await everyRowOpens(client))) {
      process.exitCode = violationsFound;
      return;
    }
    const { retired, kept } = await retireKeys(client);
    for (const number of retired) say(`Key ${number} is retired: no row needs it any more. Backups may.`);
    if (kept.length === 0) return;
    // Rows that somebody wrote meanwhile, in a transaction from before the rotation, are moved by the next lap.
    const [first] = kept;
    if (look === retirementLooks)
      throw new UsageError(`Key ${first?.number} stays in use: ${first?.reason} Then call rotate-key again.`);
    if (look === 1) say(`Waiting: ${first?.reason}`);
  }
}

async function targets(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query(
    'select name from encryption_rollout.targets where prepared_at is not null order by id',
  );
  return rows.map(({ name }) => name);
}

/** Batches until the whole table is sealed with the current key, each in a transaction of its own. Returns the rows moved. */
async function move(client: pg.Client, target: string, batchRows: number): Promise<number> {
  await forgetFailedRows(client, target);
  const checkValue = await currentCheckValue(client);
  const { rowsWithPii, encryptedRows } = await readHealth(client, target);
  // Beside a connection of the functions pg would read these as numbers; here they are text.
  const before = Number(encryptedRows);
  const show = progress(target, Number(rowsWithPii), before);
  let waiting = false;
  let moved = 0;
  for (;;) {
    const batch = await inTransaction(client, () =>
      encryptBatch(client, target, batchRows, checkValue, wholeTable),
    );
    moved += batch.encrypted;
    show(before + moved);
    if (batch.exhausted) break;
    const onlyLocked = batch.encrypted === 0 && batch.skipped > 0;
    if (onlyLocked && !waiting) say(`${target}: waiting for rows that other sessions have locked.`);
    waiting = onlyLocked;
    if (waiting) await sleep(lockedPauseMilliseconds);
  }
  const failedRows = Number((await readHealth(client, target)).failedRows);
  if (failedRows > 0)
    throw new UsageError(
      `${counted(failedRows, 'row')} of ${target} could not be written; public.encryption_errors names them and the reason. Both keys stay valid. Correct the cause, then call rotate-key again.`,
    );
  return moved;
}

/** A line for every tenth. */
function progress(target: string, total: number, before: number): (moved: number) => void {
  let shown = Math.floor((before * 10) / Math.max(1, total));
  return (moved) => {
    // Live inserts and edits are counted by nobody: more than all is all.
    const tenth = Math.min(10, Math.floor((moved * 10) / Math.max(1, total)));
    if (tenth > shown)
      say(
        `${target}: ${number.format(Math.min(moved, total))} of ${counted(total, 'row')} under the new key.`,
      );
    shown = Math.max(shown, tenth);
  };
}

async function everyRowOpens(client: pg.Client): Promise<boolean> {
  const { violated, encrypted } = await readEveryRow(client);
  say(
    violated
      ? 'No key was retired. See which rows with: npm run rollout -- verify --database-url URL'
      : `Verified: ${counted(encrypted, 'row opens', 'rows open')} to their plaintext.`,
  );
  return !violated;
}

/** Says what does not hold. */
async function readEveryRow(client: pg.Client): Promise<{ violated: boolean; encrypted: number }> {
  const found = await verify(client);
  const violated = found.flatMap(({ target, results }) =>
    results.filter(({ violations }) => violations > 0).map((result) => ({ target, ...result })),
  );
  for (const { target, invariant, violations } of violated)
    say(`✗ ${target}: ${invariant}: ${counted(violations, 'violation')}.`);
  return {
    violated: violated.length > 0,
    encrypted: found.reduce((sum, { counts }) => sum + counts.encrypted, 0),
  };
}
