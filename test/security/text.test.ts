import { describe, expect, test } from 'vitest';
import { statusScreen } from '../../cli/aws/screen.ts';
import { checkMessage } from '../../lambdas/core/afterwards/check-message.ts';
import { questionMessage } from '../../lambdas/core/gates/question-message.ts';
import { alarmMessage } from '../../lambdas/core/monitoring/alarm-message.ts';
import { buttonPage, chatAnswer } from '../../lambdas/core/operating/button-page.ts';
import type { RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { type Origin, stopMessage } from '../../lambdas/core/stopping/stop-message.ts';
import { chatMessage } from '../../lambdas/core/telling/chat.ts';
import { commandLine } from '../../lambdas/core/telling/hints.ts';
import { reportMarkdown } from '../../lambdas/core/telling/report-markdown.ts';
import { subjectOf } from '../../lambdas/core/telling/subject.ts';
import { inMarkdown, onScreen, plain, textOf, visible } from '../../lambdas/core/telling/text.ts';
import { statusUpdate } from '../../lambdas/core/telling/updates.ts';
import { status } from '../cli/status.ts';
import { calm, healthy } from '../lambdas/core/healthy.ts';
import { report } from '../lambdas/core/telling/report.ts';

const link = '[Acknowledge this page](https://example.com/login)';
const forged = 'done\n- 2026-11-23 10:00:00 Phase 5 Complete Remaining: AuditGate: **GO** · attempt 1';
const escapes = '\u001b[2J\u001b]8;;https://example.com\u0007\r';
const turned = 'public.\u202eresu';
const called = '<!channel> <https://example.com|the runbook> www.example.com';
const attacks = { link, forged, escapes, turned, called };
const attack = Object.values(attacks).join(' ');

describe('what others wrote is text', () => {
  test.each([
    [link, '[Acknowledge this page](https[:]//example.com/login)'],
    ['www.example.com, mailto:jane@example.com', 'www[.]example.com, mailto[:]jane@example.com'],
    ['done\n- forged\u2028- too', 'done\\u{a}- forged\\u{2028}- too'],
    ['\u001b[31m\u0007\u0085', '\\u{1b}[31m\\u{7}\\u{85}'],
    [turned, 'public.\\u{202e}resu'],
    ['Zoë, 東京, نمی\u200cدانم: 5 % at 10:30', 'Zoë, 東京, نمی\u200cدانم: 5 % at 10:30'],
    ['arn:aws:states:eu-west-1:1:execution:a:b', 'arn:aws:states:eu-west-1:1:execution:a:b'],
  ])('%j is %j', (text, shown) => {
    expect(plain(text)).toBe(shown);
    expect(plain(shown)).toBe(shown);
  });

  test('in Markdown it has no markup, and a name looks as it is', () => {
    expect(inMarkdown('public.app_config at 10:30, 5 % (all)')).toBe('public.app_config at 10:30, 5 % (all)');
    expect(inMarkdown('**GO** _x_ `a` | <b> [c](d) #1')).toBe(
      '\\*\\*GO\\*\\* \\_x\\_ \\`a\\` \\| \\<b\\> \\[c\\](d) \\#1',
    );
  });

  test('a record is made safe as a whole, and what is no text stays', () => {
    const at = new Date(0);
    const call = () => 1;
    expect(textOf({ [link]: [{ a: 'x\ny', n: 1, none: null, at, call }] }, visible)).toEqual({
      [link]: [{ a: 'x\\u{a}y', n: 1, none: null, at, call }],
    });
  });

  test('a screen keeps our lines and colours, and nothing else that moves it', () => {
    expect(onScreen('\u001b[32mok\u001b[39m\nnext\u001b[2J\r\t')).toBe(
      '\u001b[32mok\u001b[39m\nnext\\u{1b}[2J\\u{d}\\u{9}',
    );
  });

  test('a subject is what SNS takes: ASCII, one line, below 100 characters', () => {
    const subject = subjectOf({
      stack: 'Größe',
      what: `東京…\n${'x'.repeat(200)}`,
      tables: ['public.users'],
    });
    expect(subject).toMatch(/^Gro\?e: \?\?\.\.\.\\u\{a\}x+\.\.\.$/);
    expect(subject.length).toBeLessThan(100);
  });
});

const { health } = healthy(24.5);
const origin: Origin = {
  stack: 'Payments',
  execution: 'arn:aws:states:eu-west-1:123456789012:execution:Payments-EncryptionRollout:one',
  ownAlarms: [],
  runbookUrl: null,
  commandLine: (words) => words,
};
const attacked: RolloutStatus = {
  ...status,
  waiting: { for: attack, since: status.run?.startedAt ?? '' },
  holds: status.holds.map((hold) => ({ ...hold, gate: attack, reason: attack })),
};
const everywhere: Readonly<Record<string, string>> = {
  'the page of a stop': stopMessage(
    {
      tables: [
        {
          name: attack,
          purpose: 'encrypt',
          triggerEnabled: false,
          health,
          errors: { encryption: 1 },
          switchOff: null,
        },
      ],
      errorKinds: [
        { table: attack, type: 'encryption', sqlState: '23514', raisedBy: attack, count: 1, keys: [attack] },
      ],
      runId: 'run-1',
      why: attack,
      proof: undefined,
      tooLate: false,
      vitals: { ...calm, customerAlarms: { inAlarm: [attack], withoutData: [attack], notFound: [] } },
      gates: [{ gate: attack, verdict: 'NO_GO', reason: attack, judgedAt: new Date(0) }],
      prepared: [{ gid: attack, preparedAt: '2026-11-28 03:04', owner: attack }],
      queries: [
        { pid: 1, application: attack, state: attack, waitsFor: attack, seconds: 1, statement: attack },
      ],
    },
    origin,
  ).message,
  'an update': statusUpdate(defaultPlan, attacked, origin).message,
  'the page with buttons': buttonPage({
    status: attacked,
    said: { done: false, text: attack },
    typed: { name: 'R. Roe', reason: '' },
    endpoint: 'arn:aws:lambda:eu-west-1:123456789012:function:Payments-OperateByButton',
  }),
  'the answer in a chat': chatAnswer({ status: attacked, said: undefined }),
  'a question': questionMessage(
    { id: 'hold-1', gate: `Phase 1 ${attack}`, reason: attack, expiresAt: new Date(0) },
    defaultPlan,
    {
      ...status,
      tables: status.tables.map((table) => ({ ...table, name: attack })),
      holds: status.holds.map((hold) => ({ ...hold, id: 'hold-1', numbers: [attack] })),
    },
    origin,
  ).message,
  'the page of an alarm': alarmMessage(
    { name: 'MissingIvs', story: 'Rows have no IV.', severity: 'page' },
    [attack],
    origin,
  ).message,
  'a check': checkMessage(
    {
      gate: 'Daily check',
      verdict: 'NO_GO',
      reason: attack,
      criteria: [{ name: attack, table: attack, expected: attack, measured: attack, passed: false }],
    },
    {
      now: new Date(0),
      period: { name: 'in the last day' },
      tables: [{ name: attack, health }],
      dailyErrors: [{ table: attack, day: '2026-11-23', type: attack, count: 1 }],
      errors: [],
      keyAccess: [
        { table: attack, by: attack, purpose: attack, accesses: 1, uses: 1, failures: 0, last: 'now' },
      ],
    },
    {
      origin,
      run: 'run-1',
      input: {},
      day: 1,
      days: 30,
      report: undefined,
    },
  ).message,
  'the report': reportMarkdown({
    ...report,
    run: { ...report.run, stopReason: attack, attestations: { onCallEstablished: attack } },
    tables: report.tables.map((table) => ({ ...table, name: attack, columns: [attack], trigger: attack })),
    events: report.events.map((event) => ({ ...event, table: attack, detail: { reason: attack } })),
    holds: report.holds.map((hold) => ({ ...hold, reason: attack, decidedBy: attack, comment: attack })),
    gates: report.gates.map((gate) => ({
      ...gate,
      reason: attack,
      criteria: gate.criteria.map((each) => ({ ...each, measured: attack, expected: attack })),
    })),
  }),
};

describe.each(Object.entries(everywhere))('%s', (_what, message) => {
  test('makes no link of what others wrote', () => {
    expect(message).toContain('Acknowledge this page');
    expect(message).not.toMatch(/https?:\/\/example|www\.example/);
  });

  test('has no line that others wrote, and shows what is not to be seen', () => {
    expect(message.split('\n').filter((line) => /^- 2026-11-23 10:00:00 Phase 5/.test(line))).toEqual([]);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(message).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/);
    expect(message).toMatch(/u\\?\{202e\\?\}/);
  });

  test('has in the chat no link whose text is another than its address, and calls nobody', () => {
    const { description } = JSON.parse(chatMessage('x', message) ?? '').content;
    expect(description).not.toMatch(/\]\(|<!|<https/);
  });
});

test('the report has no markup of others', () => {
  expect(everywhere['the report']).not.toMatch(/(?<!\\)\[Acknowledge|AuditGate: \*\*GO/);
});

test('the screen of status is moved by nobody', () => {
  const place = {
    stack: 'Rollout',
    account: '1',
    region: 'eu-west-1',
    commandLine: (words: string) => commandLine({ stack: 'Rollout' }, words),
  };
  const screen = statusScreen(
    { ...status, waiting: { for: attack, since: '2026-11-23T10:00:00Z' } },
    place,
    new Date(0),
  );
  expect(screen).toContain('\\u{1b}[2J\\u{1b}]8;;');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: of escapes, colours alone are there
  expect(screen.replace(/\u001b\[\d+m|\n/g, '')).not.toMatch(/\p{Cc}|\u202e/u);
});
