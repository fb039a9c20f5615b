/**
 * Every statement of the rollout plan's SQL blocks, as an operator would paste it, in the plan's order, against a
 * database with 10,000 appointments. Two cannot run as the plan prints them (docs/decisions.md): the DO loop, whose
 * RAISE NOTICE has one placeholder for two values, and the canary, whose organization is no uuid.
 */
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshDatabase, seedAppointments, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
  await seedAppointments(client, 10_000);
});
afterAll(() => database.drop());

const run = async (sql: string) => (await client.query(sql)).rows;
const summary = async () => (await run('SELECT * FROM public.get_encryption_health_summary();'))[0];

const spotCheck = `
SELECT
  id,
  email,
  public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) as decrypted,
  email = public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) as matches
FROM public.appointments
WHERE email_encrypted IS NOT NULL
ORDER BY RANDOM()
LIMIT 10;`;

test('pre-rollout validation', async () => {
  expect(await run('SELECT * FROM get_encryption_health_summary();')).toMatchObject([
    {
      total_appointments: '10000',
      encrypted_appointments: '0',
      unencrypted_appointments: '9500',
      encryption_percentage: '0.00',
      missing_iv_count: '0',
      trigger_enabled: false,
      errors_last_hour: '0',
      health_status: 'IN_PROGRESS',
    },
  ]);
  expect(await run('SELECT COUNT(*) FROM appointments;')).toEqual([{ count: '10000' }]);
});

test('phase 1: 500 rows, VIP first, and ten of them decrypted', async () => {
  expect(await run('SELECT public.batch_encrypt_appointments(500);')).toEqual([
    { batch_encrypt_appointments: 500 },
  ]);
  expect(await summary()).toMatchObject({ encrypted_appointments: '500' });
  const before = Number(
    (await run("select count(*) from encryption_rollout.key_access where purpose = 'decrypt'"))[0].count,
  );
  const rows = await run(spotCheck);
  expect(rows).toHaveLength(10);
  expect(rows.every(({ matches, email, decrypted }) => matches && email === decrypted)).toBe(true);
  const after = Number(
    (await run("select count(*) from encryption_rollout.key_access where purpose = 'decrypt'"))[0].count,
  );
  // Both calls of ten rows, not of all the rows that were candidates.
  expect(after - before).toBe(20);
  expect(
    await run("SELECT * FROM public.encryption_errors WHERE error_timestamp > NOW() - INTERVAL '1 hour';"),
  ).toEqual([]);
  expect(await run('select from public.appointments where pii_iv is not null and not is_vip')).toEqual([]);
});

test('phase 2: 2,000 more, and who used the key', async () => {
  expect(await run('SELECT public.batch_encrypt_appointments(2000);')).toEqual([
    { batch_encrypt_appointments: 2_000 },
  ]);
  expect(await summary()).toMatchObject({ encrypted_appointments: '2500', encryption_percentage: '26.31' });
  const stats = await run("SELECT * FROM public.get_key_access_stats('2 hours'::interval);");
  expect(stats.map(({ purpose }) => purpose).sort()).toEqual(['batch', 'decrypt', 'install']);
  expect(
    await run(`SELECT
  error_type,
  COUNT(*) as count,
  MAX(error_timestamp) as last_occurrence
FROM public.encryption_errors
WHERE error_timestamp > NOW() - INTERVAL '3 hours'
GROUP BY error_type;`),
  ).toEqual([]);
});

test('phase 3: the loop as printed does not compile; with the second placeholder it reaches 90 %', async () => {
  const loop = (notice: string) => `DO $$
DECLARE
  batch_count INTEGER := 0;
  target_percentage NUMERIC := 90;
  current_percentage NUMERIC;
BEGIN
  LOOP
    -- Encrypt batch
    PERFORM public.batch_encrypt_appointments(5000);
    batch_count := batch_count + 1;

    -- Check progress
    SELECT encryption_percentage INTO current_percentage
    FROM public.get_encryption_health_summary();

    -- Log progress
    RAISE NOTICE '${notice}', batch_count, current_percentage;

    -- Exit when target reached
    EXIT WHEN current_percentage >= target_percentage;

    -- Pause between batches (10 seconds)
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;`;
  await expect(run(loop('Batch %: %% encrypted'))).rejects.toMatchObject({ code: '42601' });
  await run('BEGIN');
  await run(loop('Batch %: % %% encrypted'));
  await run('ROLLBACK');
  // Up to about 92 %, so that phase 5 has something left.
  await run('SELECT public.batch_encrypt_appointments(6300);');
  expect(Number((await summary()).encryption_percentage)).toBeGreaterThanOrEqual(90);
  expect(
    await run(
      "SELECT COUNT(*) FROM encryption_errors WHERE error_timestamp > NOW() - INTERVAL '30 minutes';",
    ),
  ).toEqual([{ count: '0' }]);
});

test('phase 4: the trigger, the canary, and new rows', async () => {
  // The seeded rows are as new as the canary; only rows from now on are the trigger's, which seals whatever is updated.
  await run("update public.appointments set created_at = created_at - interval '1 day'");
  await run(`ALTER TABLE public.appointments
ENABLE TRIGGER encrypt_appointment_pii;`);
  expect(await summary()).toMatchObject({ trigger_enabled: true });
  const canary = (organization: string) => `INSERT INTO public.appointments (
  organization_id,
  start_at,
  end_at,
  email,
  e164,
  first_name,
  status,
  note
) VALUES (
  '${organization}'::uuid,
  NOW() + INTERVAL '1 day',
  NOW() + INTERVAL '1 day' + INTERVAL '1 hour',
  'canary@example.com',
  '+15551234567',
  'CanaryTest',
  'pending',
  'Trigger activation test'
) RETURNING
  id,
  email_encrypted IS NOT NULL as encrypted,
  pii_iv IS NOT NULL as has_iv;`;
  await expect(run(canary('test-org-id'))).rejects.toMatchObject({ code: '22P02' });
  expect(await run(canary('00000000-0000-4000-8000-000000000000'))).toMatchObject([
    { encrypted: true, has_iv: true },
  ]);

  expect(
    await run(`SELECT
  COUNT(*) as new_records,
  COUNT(*) FILTER (WHERE email_encrypted IS NOT NULL) as auto_encrypted,
  COUNT(*) FILTER (WHERE pii_iv IS NULL AND email_encrypted IS NOT NULL) as missing_iv
FROM public.appointments
WHERE created_at > NOW() - INTERVAL '1 hour';`),
  ).toEqual([{ new_records: '1', auto_encrypted: '1', missing_iv: '0' }]);
});

test('phase 5: all the rest', async () => {
  const left = Number((await summary()).unencrypted_appointments);
  expect(left).toBeGreaterThan(0);
  expect(
    await run('SELECT public.batch_encrypt_appointments(NULL); -- NULL = encrypt all remaining'),
  ).toEqual([{ batch_encrypt_appointments: left }]);
  expect(await summary()).toMatchObject({
    encryption_percentage: '100.00',
    unencrypted_appointments: '0',
    health_status: 'HEALTHY',
  });
  // The plan counts rows by their e-mail alone, and expects every row to have one: rows without it are the difference.
  const [audit] = await run(`SELECT
  COUNT(*) as total_appointments,
  COUNT(*) FILTER (WHERE email_encrypted IS NOT NULL) as encrypted_count,
  COUNT(*) FILTER (WHERE pii_iv IS NULL) as missing_iv_count,
  COUNT(*) FILTER (WHERE email IS NOT NULL AND email_encrypted IS NULL) as unencrypted_count
FROM public.appointments;`);
  expect(audit).toEqual({
    total_appointments: '10001',
    encrypted_count: '8501',
    missing_iv_count: '500',
    unencrypted_count: '0',
  });
});

test('post-rollout checks', async () => {
  expect(
    await run(`SELECT
  DATE(error_timestamp) as error_date,
  error_type,
  COUNT(*) as error_count
FROM public.encryption_errors
WHERE error_timestamp > NOW() - INTERVAL '7 days'
GROUP BY DATE(error_timestamp), error_type
ORDER BY error_date DESC;`),
  ).toEqual([]);
  expect(
    (await run("SELECT * FROM public.get_key_access_stats('24 hours'::interval);"))
      .map(({ purpose }) => purpose)
      .sort(),
  ).toEqual(['batch', 'decrypt', 'install', 'trigger']);
  expect(
    await run(`SELECT
  error_type,
  COUNT(*) as total_errors,
  MIN(error_timestamp) as first_occurrence,
  MAX(error_timestamp) as last_occurrence
FROM public.encryption_errors
WHERE error_timestamp > NOW() - INTERVAL '7 days'
GROUP BY error_type;`),
  ).toEqual([]);
});

test('rollback', async () => {
  await run(`ALTER TABLE public.appointments
DISABLE TRIGGER encrypt_appointment_pii;`);
  expect(await summary()).toMatchObject({ trigger_enabled: false });
  expect(await run('SELECT COUNT(*) FROM public.appointments WHERE email IS NOT NULL;')).toEqual([
    { count: '8501' },
  ]);
  expect(
    await run("SELECT * FROM encryption_errors WHERE error_timestamp > NOW() - INTERVAL '1 hour';"),
  ).toEqual([]);
  await run(`UPDATE public.appointments
SET email_encrypted = NULL,
    e164_encrypted = NULL,
    first_name_encrypted = NULL,
    pii_iv = NULL;`);
  expect(await summary()).toMatchObject({ encrypted_appointments: '0', missing_iv_count: '0' });
  expect(await run('SELECT public.batch_encrypt_appointments(NULL);')).toEqual([
    { batch_encrypt_appointments: 9_501 },
  ]);
});
