/** Deliberate defects: a text that occurs once in a file, what replaces it, and the test file that must then fail. */
export interface Mutation {
  /** In a few words, for docs/reliability.md. */
  readonly defect: string;
  readonly file: string;
  readonly search: string;
  readonly replace: string;
  readonly caughtBy: string;
}

export const mutations: readonly Mutation[] = [
  {
    defect: 'Leave the row’s key out of the AAD',
    file: 'sql/007_row_encryption.sql',
    search: '%4$s %5$s r.row_key %5$s r.iv',
    replace: '%4$s %5$s r.iv',
    caughtBy: 'test/lambdas/handlers/gates/gate.test.ts',
  },
  {
    defect: 'Use one IV for every row',
    file: 'sql/007_row_encryption.sql',
    search: "p_iv text default 'encryption_rollout.random_iv()'",
    replace: "p_iv text default '''\\x000102030405060708090a0b0c0d0e0f''::pg_catalog.bytea'",
    caughtBy: 'test/sql/batches.test.ts',
  },
  {
    defect: 'Open a value without looking at its tag',
    file: 'sql/002_aead.sql',
    search:
      'if substr(sealed, octet_length(sealed) - 31) <> encryption_rollout.aead_tag(v_ciphertext, key, iv, aad) then',
    replace: 'if false then',
    caughtBy: 'test/sql/aead.test.ts',
  },
  {
    defect: 'Do without the guard trigger',
    file: 'sql/009_trigger_switch.sql',
    search:
      "if encryption_rollout.trigger_is_missing(p_target, 'zz_clear_stale_ciphertext', 'clear_stale_') then",
    replace: 'if false then',
    caughtBy: 'test/sql/triggers.test.ts',
  },
  {
    defect: 'Let a failure of the encryption trigger fail the customer’s write',
    file: 'sql/008_trigger_functions.sql',
    search: 'v_sqlstate := sqlstate;',
    replace: 'raise;',
    caughtBy: 'test/sql/triggers.test.ts',
  },
  {
    defect: 'Commit the cursor and the rows before the batch’s record',
    file: 'lambdas/handlers/encryption/batches.ts',
    search: 'await ofOurRecords(\n      recordBatch(client, run,',
    replace: "await client.query('commit');\n    await ofOurRecords(\n      recordBatch(client, run,",
    caughtBy: 'test/lambdas/handlers/encryption/encrypt-batch.test.ts',
  },
  {
    defect: 'Swallow a batch’s error: a deadlock or a full disk counts as poison rows',
    file: 'sql/010_failed_rows.sql',
    search:
      "if left(sqlstate, 2) in ('08', '25', '40', '53', '55', '57', '58', 'ER') and sqlstate <> 'ER014' then",
    replace: 'if false then',
    caughtBy: 'test/lambdas/handlers/encryption/encrypt-batch.test.ts',
  },
  {
    defect: 'Take a serialization failure for final',
    file: 'lambdas/adapters/postgres/database.ts',
    search: "  '40001', // serialization_failure\n",
    replace: '',
    caughtBy: 'test/lambdas/handlers/encryption/encrypt-batch.test.ts',
  },
  {
    defect: 'Tell any server the password, whatever its certificate',
    file: 'lambdas/adapters/postgres/database.ts',
    search: 'rejectUnauthorized: true',
    replace: 'rejectUnauthorized: false',
    caughtBy: 'test/lambdas/adapters/tls.test.ts',
  },
  {
    defect: 'Wait for rows that others have locked',
    file: 'sql/012_batches.sql',
    search: 'for no key update skip locked',
    replace: 'for no key update',
    caughtBy: 'test/lambdas/handlers/encryption/encrypt-batch.test.ts',
  },
  {
    defect: 'Do a batch again that was delivered twice',
    file: 'lambdas/handlers/encryption/batches.ts',
    search: 'if (served) return { ...served, reached: reaches(0), committing: null };',
    replace: '',
    caughtBy: 'test/lambdas/handlers/encryption/encrypt-batch.test.ts',
  },
  {
    defect: 'Let an attempt write that was taken over',
    file: 'lambdas/adapters/postgres/runs/runs.ts',
    search: "if (row?.status !== 'ACTIVE' || row.attempt !== run.attempt)",
    replace: 'if (row === undefined)',
    caughtBy: 'test/lambdas/handlers/encryption/encrypt-batch.test.ts',
  },
  {
    defect: 'Let a second execution take a running rollout over',
    file: 'lambdas/adapters/postgres/runs/runs.ts',
    search: "last.status !== 'STOPPED' && (await isRunning(last.execution))",
    replace: 'false',
    caughtBy: 'test/lambdas/handlers/runs/prepare-database.test.ts',
  },
  {
    defect: 'Encrypt without proving the key',
    file: 'sql/012_batches.sql',
    search: 'perform encryption_rollout.check_key(p_key_check);',
    replace: 'null;',
    caughtBy: 'test/lambdas/handlers/encryption/encrypt-batch.test.ts',
  },
  {
    defect: 'Take what could not be measured for health',
    file: 'lambdas/core/gates/judgement.ts',
    search: "unknown.length > 0 ? 'INCONCLUSIVE' : 'GO'",
    replace: "'GO'",
    caughtBy: 'test/lambdas/core/gates/gate-criteria.test.ts',
  },
  {
    defect: 'Round coverage up',
    file: 'sql/016_health.sql',
    search: 'trunc(100.0 * encrypted_rows / rows_with_pii, 2)',
    replace: 'round(100.0 * encrypted_rows / rows_with_pii)',
    caughtBy: 'test/sql/verification.test.ts',
  },
  {
    defect: 'Leave the table of the keys without row-level security',
    file: 'sql/003_keys.sql',
    search: 'alter table encryption_rollout.key_material enable row level security;\n',
    replace: '',
    caughtBy: 'test/sql/keys.test.ts',
  },
];
