import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { filledIn, headingsOf, sectionOf } from '../../../cli/aws/runbook-text.ts';
import { serviceAlerts } from '../../../infra/monitoring/service-alerts.ts';
import { alertsOf } from '../../../lambdas/core/monitoring/alerts.ts';
import { defaultPlan } from '../../../lambdas/core/plan/plan.ts';
import { headings, stopCause } from '../../../lambdas/core/stopping/stop-cause.ts';
import { commandLine } from '../../../lambdas/core/telling/hints.ts';
import { Cloud, identity, stack } from '../cloud.ts';

const runbook = readFileSync('docs/runbook.md', 'utf8');
const users = {
  name: 'sales.users',
  key: ['tenant', 'number'],
  columns: ['mail', 'phone'],
  sealed: ['mail_encrypted', 'phone_encrypted'],
  ivColumn: 'iv',
  trigger: 'encrypt_users',
};
const orders = { ...users, name: 'sales.orders', key: ['id'], trigger: 'encrypt_orders' };
const names = {
  stack: 'Clinic',
  account: '123456789012',
  region: 'eu-west-1',
  tables: [users, orders],
  headings: headingsOf(runbook),
  commandLine: (words: string) => commandLine({ stack: 'Clinic' }, words),
};
const filled = (heading: string) => filledIn(sectionOf(runbook, heading) ?? '', names);

describe('the runbook for a deployment', () => {
  test('is found by an alarm, whatever its capitals and its stack', () => {
    expect(sectionOf(runbook, 'missingivs')).toMatch(/^## MissingIvs\n[\s\S]*\n### Resolution\n/);
    expect(sectionOf(runbook, 'Clinic-MissingIvs')).toBe(sectionOf(runbook, 'MissingIvs'));
    expect(sectionOf(runbook, 'roll-back')).toBe(sectionOf(runbook, 'Roll back'));
    expect(sectionOf(runbook, 'nothing')).toBeUndefined();
  });

  test.each([
    ...[...alertsOf(defaultPlan), ...serviceAlerts].map(({ name }) => `Clinic-${name}`),
    ...Object.keys(headings),
    stopCause('the execution ended as FAILED', []).heading,
  ])(
    '%s has a heading, whose commands reach the deployment and whose links are commands, or files',
    (asked) => {
      const text = filled(asked);
      for (const part of ['Description', 'Investigation', 'Resolution'])
        expect(text).toContain(`\n### ${part}\n`);
      expect(text).not.toMatch(/\]\(|appointment|pii_iv|<stack>/);
      for (const [, line = ''] of text.matchAll(/(npm run rollout -- [^`\n]+)/g))
        expect(line).toMatch(/ --stack Clinic(?: {2,}#.*)?$/);
    },
  );

  test('has a command in the place of a link, and no comment within it', () => {
    expect(filled('StopRolloutFailed')).toContain(
      'Then as for RollbackFailed (`npm run rollout -- runbook RollbackFailed --stack Clinic`).',
    );
    expect(filled('RolloutFailed')).toContain(
      'See Roll back (`npm run rollout -- runbook Roll-back --stack Clinic`).',
    );
    expect(filled('EncryptionErrors')).toContain("are the engine's (docs/database.md#errors-of-the-engine).");
    expect(filled('Roll back')).toContain('abort --reason "…" --stack Clinic                    # while an');
  });

  test('has statements for each table, with its columns, key and trigger', () => {
    expect(filled('TriggerFailures')).toContain(
      "```sql\nSET lock_timeout = '1s';\nALTER TABLE sales.users ENABLE TRIGGER encrypt_users;\nSET lock_timeout = '1s';\nALTER TABLE sales.orders ENABLE TRIGGER encrypt_orders;\n```",
    );
    const decryption = filled('DecryptionFailures');
    expect(decryption).toContain(
      "UPDATE sales.users SET mail_encrypted = NULL, phone_encrypted = NULL, iv = NULL WHERE (tenant, number) = ('…', '…');",
    );
    expect(decryption).toContain("iv = NULL WHERE id = '…';");
    const missing = filled('MissingIvs');
    expect(missing).toContain(
      '`SELECT tenant, number FROM sales.users WHERE iv IS NULL AND num_nonnulls(mail_encrypted, phone_encrypted) > 0 LIMIT 20;`',
    );
  });

  test('has in one statement what has to be done to every column', () => {
    const drifted = filled('TableDrifted');
    expect(drifted).toContain(`UPDATE sales.users SET
  mail = coalesce(mail, public.decrypt_users_pii_with_iv_logged(mail_encrypted, iv, tenant, number)),
  phone = coalesce(phone, public.decrypt_users_pii_with_iv_logged(phone_encrypted, iv, tenant, number))
WHERE mail IS NULL AND mail_encrypted IS NOT NULL
  OR phone IS NULL AND phone_encrypted IS NOT NULL;
UPDATE sales.orders SET
`);
    expect(
      drifted,
    ).toContain(`UPDATE sales.orders SET mail_encrypted = NULL, phone_encrypted = NULL, iv = NULL
WHERE mail IS NULL AND mail_encrypted IS NOT NULL
  OR phone IS NULL AND phone_encrypted IS NOT NULL;
`);
    const restored = filled('Restore from a backup');
    expect(restored).toContain(
      `"\\copy (select tenant, number, mail, phone from sales.users where (tenant, number) in (('…', '…'))) to`,
    );
    expect(restored).toContain(
      '"update sales.users as a set mail = b.mail, phone = b.phone from back as b where a.tenant = b.tenant and a.number = b.number"',
    );
    expect(restored).toContain(`select id, mail, phone from sales.orders where id in ('…')`);
  });

  test('is right for a table whose columns begin as those of the shipped one', () => {
    const table = {
      ...users,
      key: ['id'],
      columns: ['email', 'e164', 'first_name', 'last_name'],
      sealed: ['email_encrypted', 'e164_encrypted', 'first_name_encrypted', 'last_name_encrypted'],
    };
    const text = filledIn(sectionOf(runbook, 'Restore from a backup') ?? '', { ...names, tables: [table] });
    expect(text).toContain('(select id, email, e164, first_name, last_name from sales.users ');
    expect(text).toContain('\\copy back (id, email, e164, first_name, last_name) from');
    expect(text).not.toContain('last_name, last_name');
  });

  test('names the stack, and nothing of the shipped table, under any heading', () => {
    expect(filled('ChecksFailed')).toContain(
      'arn:aws:states:eu-west-1:123456789012:stateMachine:Clinic-PostRolloutChecks',
    );
    for (const heading of headingsOf(runbook))
      expect(filled(heading), heading).not.toMatch(/appointment|pii_iv|e164|first_name|<stack>/);
  });

  test('stays as it is written where no table is known yet', () => {
    const section = sectionOf(runbook, 'TriggerFailures') ?? '';
    expect(filledIn(section, { ...names, tables: [] })).toContain('encrypt_appointment_pii');
  });
});

describe('the command', () => {
  const cloud = new Cloud();
  beforeAll(() => cloud.start());
  afterAll(() => cloud.stop());
  const answered = (Invoke: (typeof cloud.answers)[string]) => {
    cloud.answers = { GetCallerIdentity: identity, DescribeStacks: stack, Invoke };
  };

  test('shows the heading of an alarm with the names of its tables, and links dashboard and log', async () => {
    answered({ body: JSON.stringify({ done: '', report: { tables: [users] } }) });
    const { code, stdout } = await cloud.rollout(['runbook', 'Rollout-TriggerFailures']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^## TriggerFailures\n/);
    expect(stdout).toContain('ALTER TABLE sales.users ENABLE TRIGGER encrypt_users;');
    expect(stdout).toContain('`npm run rollout -- status --stack Rollout`');
    expect(stdout).toMatch(
      /\n\nDashboard: https:\/\/eu-west-1\.console\S+#dashboards\/dashboard\/Rollout\nLog: https:\/\/eu-west-1\.console\S+Rollout\n$/,
    );
  });

  test('shows it also while the database is what does not answer', async () => {
    const errorMessage = 'The database is not reachable.';
    answered({
      error: 'Unhandled',
      body: JSON.stringify({ errorType: 'DatabaseUnreachable', errorMessage }),
    });
    const { code, stdout, stderr } = await cloud.rollout(['runbook', 'DatabaseUnreachable']);
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: `The records do not answer, so statements name the shipped table: ${errorMessage}\n`,
    });
    expect(stdout).toMatch(/^## DatabaseUnreachable\n/);
  });

  test('says of an alarm that it does not know which there are', async () => {
    const { code, stdout, stderr } = await cloud.rollout(['runbook', 'Rollout-Nothing']);
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: '',
      stderr: `Found no heading Rollout-Nothing in the runbook, expected one of these: ${headingsOf(runbook).join(', ')}.\n`,
    });
  });
});
