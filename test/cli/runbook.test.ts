import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { filledIn, headingsOf, sectionOf } from '../../cli/aws/runbook-text.ts';

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
const names = { stack: 'Clinic', account: '123456789012', region: 'eu-west-1', tables: [users, orders] };
const filled = (heading: string) => filledIn(sectionOf(runbook, heading) ?? '', names);

describe('the runbook for a deployment', () => {
  test('is found by an alarm, whatever its capitals and its stack', () => {
    expect(sectionOf(runbook, 'missingivs')).toMatch(/^## MissingIvs\n[\s\S]*\n### Resolution\n/);
    expect(sectionOf(runbook, 'Clinic-MissingIvs')).toBe(sectionOf(runbook, 'MissingIvs'));
    expect(sectionOf(runbook, 'nothing')).toBeUndefined();
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

  test('has a statement for each column that is written alone', () => {
    const drifted = filled('TableDrifted');
    for (const [column, sealed] of [
      ['mail', 'mail_encrypted'],
      ['phone', 'phone_encrypted'],
    ])
      expect(drifted).toContain(
        `UPDATE sales.users SET ${column} = public.decrypt_users_pii_with_iv_logged(${sealed}, iv, tenant, number) WHERE ${column} IS NULL AND ${sealed} IS NOT NULL;\n`,
      );
    expect(drifted).toContain(
      'UPDATE sales.orders SET phone_encrypted = NULL WHERE phone IS NULL AND phone_encrypted IS NOT NULL;',
    );
  });

  test('names the stack, and nothing of the shipped table, under any heading', () => {
    expect(filled('ChecksFailed')).toContain(
      'arn:aws:states:eu-west-1:123456789012:stateMachine:Clinic-PostRolloutChecks',
    );
    for (const heading of headingsOf(runbook).filter((each) => each !== 'Restore from a backup'))
      expect(filled(heading), heading).not.toMatch(/appointment|pii_iv|e164|first_name|<stack>/);
  });

  test('stays as it is written where no table is known yet', () => {
    const section = sectionOf(runbook, 'TriggerFailures') ?? '';
    expect(filledIn(section, { ...names, tables: [] })).toContain('encrypt_appointment_pii');
  });
});
