import { expect, test } from 'vitest';
import { readConfig } from '../../../infra/config.ts';
import { synthesizeRollout } from '../../../infra/synthesis.ts';
import { Target } from '../../../lambdas/core/plan/settings.ts';
import { everything } from '../everything.ts';

interface Widget {
  readonly type: string;
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly properties: {
    readonly title?: string;
    readonly markdown?: string;
    readonly endpoint?: string;
    readonly updateOn?: Record<string, boolean>;
    readonly alarms?: readonly string[];
    readonly metrics?: readonly (readonly unknown[])[];
    readonly annotations?: { readonly horizontal?: readonly { readonly label: string }[] };
  };
}

/** As CloudWatch has it, with references by name. */
function widgetsOf(config: Parameters<typeof synthesizeRollout>[0]): Widget[] {
  const { Resources } = synthesizeRollout(config).template;
  const found = Object.values(Resources).filter(({ Type }) => Type === 'AWS::CloudWatch::Dashboard');
  const [body] = found.map(
    ({ Properties }) =>
      (Properties as { DashboardBody: { 'Fn::Join': [string, unknown[]] } }).DashboardBody['Fn::Join'][1],
  );
  const text = (body ?? [])
    .map((part) =>
      typeof part === 'string'
        ? part
        : Object.values(part as object)
            .flat()
            .join('.'),
    )
    .join('');
  return JSON.parse(text).widgets;
}

test.each([
  ['of an Aurora cluster', everything, ['Commits, ms each', 'Replica lag, ms']],
  ['of an instance', readConfig('config/example.json'), ['Writes to disk, s each', 'Free storage, bytes']],
])('the dashboard %s answers the questions that a person has, in their order', (_, config, ofDatabase) => {
  const widgets = widgetsOf(config).sort((a, b) => a.y - b.y || a.x - b.x);
  const titles = widgets.map(({ properties }) => properties.title ?? 'Links');
  const inOrder = [
    'Links',
    'What is going on, and what do you want to do?',
    'Which phase?',
    'When done?',
    'Do customers notice anything?',
    expect.stringMatching(/^Is it healthy\?/),
    'How is the database? CPU, %',
    'Connections',
    ...ofDatabase,
    'Coverage of rows with personal data, %',
    'Failures',
  ];
  expect(
    titles.filter((title) =>
      inOrder.some((each) => (typeof each === 'string' ? each === title : each.asymmetricMatch(title))),
    ),
  ).toEqual(inOrder);
  const of = (title: string) => widgets.find(({ properties }) => properties.title === title)?.properties;
  expect(of('How is the database? CPU, %')?.annotations?.horizontal?.map(({ label }) => label)).toEqual([
    'batches pause',
    'stops',
  ]);
  expect(of('Do customers notice anything?')?.alarms).toHaveLength(config.customerAlarms.length);
  expect(widgets[0]?.properties.markdown).toMatch(
    /button:Executions.*button:Log.*button:Database\]\(\/rds\/home\S+#database:id=\w+;is-cluster=/,
  );
  // Each graph with a limit shows it.
  const limits = (title: string) => of(title)?.annotations?.horizontal?.map(({ label }) => label);
  expect(limits('Coverage of rows with personal data, %')).toEqual(['CoverageBelow99']);
  expect(limits('Rows per second, and milliseconds per row')).toEqual(['BatchesSlow']);
});

test('the buttons are those of the function for it, asked anew with every refresh', () => {
  const widget = widgetsOf(everything).find(({ type }) => type === 'custom');
  expect(widget?.properties).toMatchObject({
    endpoint: expect.stringMatching(/^FunctionsOperateByButton\w+\.Arn$/),
    updateOn: { refresh: true, resize: false, timeRange: false },
  });
});

test('of more tables than a widget has metrics for there are several', () => {
  const targets = Array.from({ length: 300 }, (_, n) =>
    Target.parse({ table: `table_${n}`, columns: ['email'], canary: { email: 'canary@example.com' } }),
  );
  const widgets = widgetsOf({ ...readConfig('config/example.json'), targets });
  const coverage = widgets.filter(({ properties }) => properties.title?.startsWith('Coverage'));
  expect(coverage.map(({ properties }) => properties.metrics?.length)).toEqual([500, 100]);
});
