import { describe, expect, test } from 'vitest';
import { exposureCriteria, type ServerSetting } from '../../../../lambdas/core/preflight/exposure.ts';

const setting = (name: string, value: string, scope = 'server'): ServerSetting => ({ name, value, scope });
const judged = (...settings: ServerSetting[]) =>
  exposureCriteria({ settings, foreignCode: [], breaches: [], members: [] })[0];

describe('the server log keeps secrets', () => {
  test.each([
    ['nothing of it is loaded', []],
    [
      'auto_explain logs plans alone',
      [
        setting('auto_explain.log_min_duration', '0'),
        setting('auto_explain.log_nested_statements', 'on'),
        setting('auto_explain.log_verbose', 'off'),
        setting('auto_explain.log_parameter_max_length', '0'),
        setting('auto_explain.log_parameter_max_length', '0B', 'role app'),
      ],
    ],
    [
      'auto_explain is idle',
      [setting('auto_explain.log_verbose', 'on'), setting('auto_explain.log_min_duration', '-1')],
    ],
    [
      'pgaudit is idle',
      [setting('pgaudit.log_parameter', 'on'), setting('pgaudit.log', 'none'), setting('pgaudit.role', '')],
    ],
    ['plans are not printed', [setting('debug_print_plan', 'off')]],
  ])('passed when %s', (_, settings) => {
    expect(judged(...settings)).toMatchObject({ passed: true, measured: 'no such setting' });
  });

  const explains = setting('auto_explain.log_min_duration', '250', 'role app');
  test.each([
    ['verbose plans', 'auto_explain.log_verbose', 'on', 'off', explains],
    ['parameters of plans', 'auto_explain.log_parameter_max_length', '-1', '0', explains],
    ['audited parameters', 'pgaudit.log_parameter', 'on', 'off', setting('pgaudit.log', 'write, function')],
    ['audited objects', 'pgaudit.log_parameter', 'on', 'off', setting('pgaudit.role', 'rds_pgaudit')],
    ['printed plans', 'debug_print_plan', 'on', 'off', setting('pgaudit.log', 'none')],
  ])('refused with %s, and the setting to change is named', (_, name, value, safe, other) => {
    const criterion = judged(setting(name, value), other);
    expect(criterion).toMatchObject({ passed: false, measured: `${name} is ${value} for every session` });
    expect(criterion?.advice).toContain(`set ${name} = ${safe} on the server`);
  });

  test('refused when it is so for another role, whose writes fire the trigger', () => {
    expect(
      judged(setting('debug_print_plan', 'off'), setting('debug_print_plan', 'true', 'role app')),
    ).toMatchObject({ passed: false, measured: 'debug_print_plan is true for role app' });
  });

  test('not known when it is set for our role alone', () => {
    expect(judged(setting('debug_print_plan', 'off', 'ours'))).toMatchObject({ passed: null });
  });
});

test('foreign code is refused, with the statement that ends it', () => {
  const foreignCode = [{ finding: 'app may create triggers on t', fix: 'revoke trigger on t from app;' }];
  expect(exposureCriteria({ settings: [], foreignCode, breaches: [], members: [] })[1]).toMatchObject({
    passed: false,
    measured: 'app may create triggers on t',
    advice: 'revoke trigger on t from app;',
  });
});
