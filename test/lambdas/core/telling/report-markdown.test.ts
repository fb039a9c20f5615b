import { describe, expect, test } from 'vitest';
import { approvalCriterion } from '../../../../lambdas/core/gates/decisions.ts';
import type { PhaseReport, Report } from '../../../../lambdas/core/telling/report.ts';
import { reportHtml } from '../../../../lambdas/core/telling/report-html.ts';
import { reportMarkdown, reportMessage } from '../../../../lambdas/core/telling/report-markdown.ts';
import { glued } from './glued.ts';
import { otherForms } from './other-forms.ts';
import { at, event, report } from './report.ts';

describe('the report', () => {
  test('of a run that was stopped is a post-mortem, of any other a rollout report, with the verdict first', () => {
    expect(reportMarkdown(report)).toMatch(
      /^# Post-mortem: encryption of public\.appointments\n\n## Summary\n\nStopped: 12,000 of 20,000 rows/,
    );
    const done = { ...report, run: { ...report.run, status: 'COMPLETED' as const, stopReason: null } };
    expect(reportMarkdown(done)).toMatch(/^# Rollout report: encryption of public\.appointments\n/);
    expect(reportMarkdown(done)).toContain('The plaintext columns remain as they were.');
  });

  test('says what was encrypted, with what, and what was not done', () => {
    for (const line of [
      '- public.appointments: email → email_encrypted, first_name → first_name_encrypted; initialization vector in pii_iv',
      '- Format 1: AEAD_AES_256_CBC_HMAC_SHA_512 (RFC 7518, 5.2)',
      '- Key 1, check value 0102030405060708',
      '- Made with version 1.2.3; database shop, PostgreSQL 18.4; engine of 24 SQL files, digest abababababababab',
      '- Plaintext was not deleted: public.appointments (email, first_name) still hold it',
      '- 8,000 rows of public.appointments were not encrypted when they were counted last.',
      '- Attested: On-call rotation established: R. Roe',
      '- Preflight: go by R. Roe, 2026-11-23 10:21 UTC',
    ])
      expect(reportMarkdown(report)).toContain(line);
    expect(otherForms(reportMarkdown(report))).toEqual([]);
    expect(glued(reportMarkdown(report))).toEqual([]);
  });

  test('expects of the tables of a phase the time of all, one after the other, and one soak', () => {
    const [phase] = report.phases as [PhaseReport];
    const text = reportMarkdown({
      ...report,
      phases: [phase, { ...phase, table: 'public.users', startedAt: at(2), passedAt: at(36) }],
    });
    // Twice a minute for the rows, twice another for the pauses, and half an hour.
    expect(text).toContain('- Phase 1 Initial Batch: 36 min, 34 min expected');
  });

  test('shows coverage, pace, time and failures as charts, and what verify found', () => {
    const verified = {
      outcome: 'GOOD',
      targets: [
        {
          target: 'public.appointments',
          counts: { rows: 20_000, withPii: 20_000, encrypted: 12_000 },
          invariants: [{ invariant: 'Values open', checked: 12_000, violations: 0 }],
        },
      ],
    };
    const html = reportHtml(report, verified);
    expect(html).toContain('<li>Made with version 1.2.3; database shop');
    expect(html.match(/<svg /g)).toHaveLength(5);
    expect(html).toContain('<li>✓ Values open: 12,000 checked, 0 violations</li>');
    // One file, for which nothing is fetched and nothing runs.
    expect(html).not.toMatch(/<script|<link|<img|https?:|url\(/);
    expect(html).toContain('<details open><summary><b>NO_GO Phase 1 Initial Batch: SoakGate');
    expect(html).toContain('<details><summary>GO Phase 1 Initial Batch: Gate');
    expect(html.match(/<ul>/g)).toHaveLength(html.match(/<\/ul>/g)?.length ?? 0);
    expect(reportMarkdown(report, verified).match(/```mermaid/g)).toHaveLength(5);
    expect(reportMessage(report)).not.toContain('mermaid');
  });

  describe('charts', () => {
    const chart = (html: string, title: string) =>
      html.split('<figure>').find((each) => each.includes(`<b>${title},`)) ?? '';
    const bars = (drawn: string) => drawn.match(/fill="currentColor"/g)?.length ?? 0;

    test('a soak between batches is time in which nothing was written, in each of them', () => {
      // A batch of the next phase, half an hour after those of the first.
      const next = { at: at(30), seconds: 60, rows: 3_000, failed: 0, milliseconds: 9_000 };
      const told = { ...report, pace: [...report.pace, next] };
      const html = reportHtml(told);
      // 4,000 rows in a minute, and not in the half hour to the next batch.
      expect(chart(html, 'Pace')).toContain('at most 133.33<');
      expect(bars(chart(html, 'Pace'))).toBe(3);
      for (const title of ['Coverage', 'Pace', 'Time of batches', 'Rows that failed'])
        expect(chart(html, title)).toMatch(/>2026-11-23 10:00 UTC<[\s\S]*>2026-11-23 10:31 UTC</);
      const [, pace = ''] = reportMarkdown(told).split('title "Pace"');
      // A bar that had the width of a few would cover the time in which nothing was written.
      expect(reportMarkdown(told)).not.toContain('  bar [');
      const [, time = ''] = reportMarkdown(told).split('title "Time of batches"');
      expect(time).toContain('y-axis "ms a row, 0 where none"');
      expect(pace).toContain('x-axis "2026-11-23 10:00 UTC to 2026-11-23 10:31 UTC, min" 0 --> 31');
      expect(/line \[([^\]]*)\]/.exec(pace)?.[1]?.split(', ')).toEqual([
        '133.33',
        '66.67',
        ...Array(28).fill('0'),
        '50',
      ]);
    });

    test('waits are among them, also one after the last batch', () => {
      // From minute 3 to 18.
      const drawn = chart(reportHtml(report), 'Waits for a pressure to ease');
      expect(drawn).toContain('at most 1<');
      expect(bars(drawn)).toBe(15);
      expect(drawn).toContain('>2026-11-23 10:18 UTC<');
    });

    test('have no more values than there is room for, however long a wait was', () => {
      const pace = report.pace.map((each) => ({ ...each, seconds: 1 }));
      const told = { ...report, pace, events: [event('WAITING', 3, { for: 'Pressure that can ease: CPU' })] };
      const [, values = ''] = /line \[([^\]]*)\]/.exec(reportMarkdown(told)) ?? [];
      expect(values.split(', ').length).toBeLessThanOrEqual(120);
    });

    test('a batch that wrote next to nothing took no time a row, and what never failed is drawn on an axis', () => {
      const pace = report.pace.map((each) => ({ ...each, failed: 0 }));
      const idle = { at: at(2), seconds: 60, rows: 1, failed: 0, milliseconds: 300 };
      const html = reportHtml({ ...report, pace: [...pace, idle] });
      expect(bars(chart(html, 'Pace'))).toBe(3);
      expect(bars(chart(html, 'Time of batches'))).toBe(2);
      expect(chart(html, 'Time of batches')).toContain('at most 3<');
      expect(chart(html, 'Rows that failed')).toContain('</b>none<');
      expect(chart(html, 'Rows that failed')).toContain('text-anchor="end">1<');
    });
  });

  test('on paper has all that is folded, no line in two pieces, and the number of each page', () => {
    const html = reportHtml(report);
    const [, print = ''] = /@media print \{([\s\S]*?)\n\}/.exec(html) ?? [];
    expect(print).toContain('details::details-content { content-visibility: visible; block-size: auto }');
    expect(print).toMatch(
      /h1, h2, summary \{ break-after: avoid \} li, p, summary, figure \{ break-inside: avoid \}/,
    );
    expect(print).toContain('color-scheme: light');
    // The mark of a criterion stands before its text, however many lines that has.
    expect(html).toContain('details li { padding-left: 1.2rem; text-indent: -1.2rem }');
    expect(html).toContain('counter(page) " / " counter(pages)');
    expect(html).toContain('<time>2026-11-23 10:02 UTC</time>, attempt 1: 1 of 1 passed</summary>');
  });

  test('says nothing by a colour: verdicts are words, criteria have marks, and charts one ink', () => {
    const html = reportHtml(report);
    expect(html).not.toMatch(/(?:fill|stroke)="(?!none"|currentColor")|[^-]color:|#(?!39;|8886\b)[\da-f]{3}/);
    expect(html.match(/<summary>(?:<b>)?(\w+)/g)).toEqual(['<summary>GO', '<summary><b>NO_GO']);
    const [, gates = ''] = html.split('Gates, expected and measured');
    for (const [, criterion] of (gates.split('</section>')[0] ?? '').matchAll(/<li>(.)/g))
      expect(criterion).toMatch(/[✓✗?]/);
  });

  test('has no markup of others in HTML', () => {
    const attack = '<script>alert(1)</script> [x](https://example.com) "\'';
    const html = reportHtml({ ...report, run: { ...report.run, stopReason: attack } });
    expect(html).toContain('&lt;script&gt;alert(1)&lt;/script&gt; [x](https[:]//example.com) &quot;&#39;');
    expect(html).not.toContain('<script');
  });
});

describe('what the report says of the run', () => {
  const text = reportMarkdown(report);

  test('holds what was measured against what was expected', () => {
    // 12,000 rows at 5 ms are a minute, five pauses of 10 s and one more another, the soak half an hour.
    expect(text).toContain('- Phase 1 Initial Batch: 35 min, 32 min expected');
    expect(text).toContain('3 ms a row, expected at most 5 ms; 6 batches, the slowest 9 s');
    expect(text).toContain('soaked for 31 min, 30 min expected');
    expect(text).toContain('✗ Database CPU: expected not above 80 %; measured 99 %');
    // What passed is a number.
    expect(text).toContain(
      '- GO Phase 1 Initial Batch: Gate, 2026-11-23 10:02 UTC, attempt 1: 1 of 1 passed\n',
    );
    expect(text).not.toContain('✓');
  });

  test('tells errors, waits, holds with who decided, and how long a rollback took', () => {
    expect(text).toContain(
      '- Errors of encryption of public.appointments: 2, from 2026-11-23 10:01 UTC to 2026-11-23 10:02 UTC',
    );
    expect(text).toContain('the batches waited for 15 min (for: Pressure that can ease: CPU at 75 %)');
    expect(text).toContain('Held at Preflight: CPU: no reading. Decided after 20 min: go by R. Roe.');
    expect(text).toContain(
      'rollback of attempt 1: trigger off after 3 s, plaintext proven after 6 s, over after 12 s',
    );
  });

  test('does not call a trigger left on that the next execution, quicker than the rollback, had switched off', () => {
    const events = [event('TRIGGER_DISABLED', 39), event('STOPPING', 40), event('TRIGGER_LEFT_ON', 41)];
    expect(reportMarkdown({ ...report, events })).toContain('rollback of attempt 1: trigger off before,');
    const [, ...alone] = events;
    expect(reportMarkdown({ ...report, events: alone })).toContain('rollback of attempt 1: trigger left on,');
  });

  test('tells of several tables, each by its name, what became of their triggers', () => {
    const [users, invoices] = ['public.users', 'billing.invoices'];
    const events = [
      event('TRIGGER_DISABLED', 39, {}, users),
      event('STOPPING', 40),
      event('TRIGGER_LEFT_ON', 41, {}, users),
      event('TRIGGER_DISABLED', 41, {}, invoices),
    ];
    const tables = [users, invoices].map(
      (name) => ({ ...report.tables[0], name }) as Report['tables'][number],
    );
    const text = reportMarkdown({ ...report, tables, events });
    expect(text).toContain('# Post-mortem: encryption of public.users and billing.invoices\n');
    expect(text).toContain(
      'rollback of attempt 1: trigger of public.users off before, trigger of billing.invoices off after 1 min, plaintext',
    );
    expect(text).toContain('TRIGGER_DISABLED billing.invoices');
    for (const name of [users, invoices]) expect(text).toContain(`Latency of writes, ${name}: not measured`);
  });

  test('names the table of phases, errors, audits, criteria and the latency of writes', () => {
    const of = (table: string, rowsMismatched: number) => ({
      table,
      attempt: 1,
      finished: true,
      rowsVerified: 10,
      rowsMismatched,
    });
    const tested = { offMilliseconds: 1, onMilliseconds: 2.5 };
    const text = reportMarkdown({
      ...report,
      tables: ['public.appointments', 'public.users', 'sales.orders'].map((name) => ({
        ...(report.tables[0] as Report['tables'][number]),
        name,
        completedAt: at(120),
      })),
      phases: report.phases.flatMap((phase) => [phase, { ...phase, table: 'public.users', passedAt: null }]),
      errors: [...report.errors, { table: null, type: 'decryption', count: 1, first: at(1), last: at(1) }],
      audits: [of('public.appointments', 0), of('public.users', 2)],
      gates: report.gates.map((gate) => ({
        ...gate,
        criteria: gate.criteria.map((criterion) => ({ ...criterion, table: 'public.users', passed: false })),
      })),
      events: [event('TRIGGER_TESTED', 30, tested, 'public.users')],
    });
    for (const line of [
      '# Post-mortem: encryption of 3 tables: public.appointments, public.users, sales.orders',
      '- Phase 1 Initial Batch: not passed',
      '  - public.users: 3 ms a row, expected at most 5 ms',
      '- Errors of encryption of public.appointments: 2, from',
      '- Errors of decryption: 1, from',
      '- 2 rows of public.users did not open to their plaintext in the audit of attempt 1',
      '✗ public.users: Missing IVs: expected 0; measured 0',
      '- Latency of writes, public.appointments: not measured',
      '- Latency of writes, public.users: 1 ms without the trigger, 2.5 ms with it',
    ])
      expect(text).toContain(line);
    expect(text).not.toContain('of public.appointments did not open');
  });

  test('does not keep quiet about a trigger that nobody could switch off', () => {
    const [users, invoices] = ['public.users', 'billing.invoices'];
    const events = [
      event('PHASE_STARTED', 1, {}, users),
      event('PHASE_STARTED', 1, {}, invoices),
      event('STOPPING', 40),
      event('TRIGGER_DISABLED', 40.1, {}, invoices),
    ];
    expect(reportMarkdown({ ...report, events })).toContain(
      'trigger of public.users off after never, trigger of billing.invoices off after 6 s, plaintext',
    );
  });

  test('tells approvals and pauses that people wanted in the timeline, not among what was unexpected', () => {
    const gate = 'Phase 3 Bulk Migration: Approval';
    const asked = {
      attempt: 1,
      gate,
      phase: 3,
      verdict: 'INCONCLUSIVE' as const,
      reason: `${gate}: Approval: not given yet.`,
      criteria: [approvalCriterion],
      judgedAt: at(20),
    };
    const waits = ['Paused by R. Roe', 'Outside the off-peak windows: Mon 22:00–05:00 (Europe/Berlin)'];
    const refusal = { name: 'Decision of a person', expected: 'go', measured: 'no-go', passed: false };
    const text = reportMarkdown({
      ...report,
      errors: [],
      gates: [asked],
      events: [
        ...waits.map((reason, index) => event('WAITING', 10 + index, { for: reason })),
        event('HOLD_DECIDED', 22, { hold: 'hold-abc', gate, decision: 'go', by: 'R. Roe' }),
      ],
      holds: report.holds.map((hold) => ({ ...hold, gate })),
    });
    expect(text).toContain('## Unexpected issues\n\nNone was recorded.');
    for (const reason of waits) expect(text).toContain(`WAITING (for: ${reason})`);
    expect(text).toContain(
      'HOLD_DECIDED (hold: hold-abc, gate: Phase 3 Bulk Migration: Approval, decision: go',
    );
    const refused = { ...asked, verdict: 'NO_GO' as const, criteria: [approvalCriterion, refusal] };
    expect(reportMarkdown({ ...report, gates: [refused] })).toContain(`NO_GO: ${asked.reason}`);
  });

  test('says how much it leaves out, and where that is', () => {
    expect(text).not.toContain('Not all that was recorded');
    expect(reportMarkdown({ ...report, leftOut: { gates: 0, events: 1_200, holds: 3 } })).toContain(
      `left out are 1,200 of the earliest in encryption_rollout.events, 3 of the earliest in encryption_rollout.holds (run_id = '${report.run.id}').`,
    );
  });

  test('tells events and gates in the order in which they happened', () => {
    const line = (part: string) => text.split('\n').findIndex((each) => each.includes(part));
    const order = [
      'STARTED',
      'HOLD_ASKED',
      ' Phase 1 Initial Batch: Gate: GO',
      'WAITING',
      'HOLD_DECIDED',
      'STOPPING',
    ].map(line);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(Math.min(...order)).toBeGreaterThan(0);
  });

  test('leaves to people what only people know', () => {
    for (const heading of [
      'What went well',
      'What could be improved',
      'Recommendations for future migrations',
    ])
      expect(text).toContain(`\n## ${heading}\n\n<!-- for people to fill in -->\n`);
  });

  test('has every gate of an ordinary rollout and its checks, with all that was asked', () => {
    const criteria = Array.from({ length: 18 }, (_, index) => ({
      name: `Criterion ${index}`,
      expected: 'what the plan asks for, in some words',
      measured: 'what was found, in some words',
      passed: true,
    }));
    const gates = Array.from({ length: 12 }, (_, index) => ({
      attempt: 1,
      gate: `Gate ${index}`,
      phase: 1,
      verdict: 'GO' as const,
      reason: '',
      criteria,
      judgedAt: at(index),
    }));
    const text = reportMessage({ ...report, gates });
    expect(text.match(/^- GO Gate \d+, .*: 18 of 18 passed$/gm)).toHaveLength(12);
    expect(text).not.toContain('left out');
    expect(reportHtml({ ...report, gates }).match(/✓ Criterion /g)).toHaveLength(12 * 18);
  });

  test('fits into a message however long the run was, with its beginning and its end; a file takes all of it', () => {
    const long = 'wörter '.repeat(2_000);
    const lengthy: Report = {
      ...report,
      events: Array.from({ length: 500 }, (_, index) => event(`EVENT_${index}_`, index, { reason: long })),
      gates: Array.from({ length: 500 }, (_, index) => ({
        attempt: index,
        gate: `Gate ${index}`,
        phase: 1,
        verdict: 'NO_GO' as const,
        reason: long,
        criteria: [{ name: long, expected: long, measured: long, passed: false }],
        judgedAt: at(index),
      })),
      errors: Array.from({ length: 500 }, () => ({
        table: null,
        type: long,
        count: 1,
        first: at(0),
        last: at(0),
      })),
    };
    const text = reportMessage(lengthy);
    expect(Buffer.byteLength(text)).toBeLessThan(256 * 1024);
    expect(text).toContain('EVENT_0');
    expect(text).toContain('Gate 499');
    expect(text).toMatch(/\d{3} lines left out/);
    expect(text).toContain('## Recommendations for future migrations');
    const whole = reportMarkdown(lengthy);
    expect(whole.match(/^- NO_GO Gate \d+,/gm)).toHaveLength(500);
    expect(whole.includes('…')).toBe(false);
  });

  test('writes the times of an event as all others', () => {
    const asked = event('HOLD_ASKED', 1, { hold: 'hold-abc', expiresAt: '2026-11-23T20:12:36.731Z' });
    expect(reportMarkdown({ ...report, events: [asked] })).toContain(
      'HOLD_ASKED (hold: hold-abc, expiresAt: 2026-11-23 20:12:36 UTC)',
    );
  });

  test('says what there is not', () => {
    const empty = reportMarkdown({ ...report, gates: [], events: [], holds: [], errors: [], phases: [] });
    expect(empty).toContain('## Unexpected issues\n\nNone was recorded.');
    expect(empty).toContain('None was reached.');
    expect(empty).toContain('Latency of writes, public.appointments: not measured');
  });
});
