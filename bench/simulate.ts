/**
 * `npm run simulate`: a rollout of any size in minutes, without a database. The machines are the synthesized ones; functions
 * are those of a model (model.ts), with the plan's own arithmetic and the controller itself.
 */
import { writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { readConfig } from '../infra/config.ts';
import { synthesizeRollout } from '../infra/synthesis.ts';
import { duration } from '../lambdas/core/telling/time.ts';
import { count } from '../terminal/display.ts';
import { paceChart } from './pace-chart.ts';
import { type Simulated, simulate } from './simulation.ts';

type Options = Simulated & { readonly json: boolean; readonly svg?: string };

const positive = (text: string) => {
  const value = Number(text);
  if (!(value > 0)) throw new Error(`Found ${JSON.stringify(text)}, expected a number above 0, like 1e9.`);
  return value;
};

const options = new Command('npm run simulate --')
  .description(
    'Runs the synthesized machines against a model of the database: hours, history, transitions, charges',
  )
  .option('--rows <n>', 'rows that hold personal data', positive, 1e9)
  .addOption(
    new Option('--pace <pace>', 'how fast batches go').choices(['plan', 'adaptive']).default('adaptive'),
  )
  .option('--vcpus <n>', "of the database's server", positive, 8)
  .option('--row-microseconds <n>', 'work of a batch for a row, alone on the server', positive, 59)
  .option('--audit-microseconds <n>', 'work of the final audit for a row', positive, 40)
  .option('--others <n>', 'sessions of others that are at work, half of the time twice as many', Number, 0)
  .option('--json', 'one JSON document')
  .option('--svg <file>', 'share, utilization and load over the first half hour, as a picture')
  .parse()
  .opts<Options>();

const { machines } = synthesizeRollout(readConfig('config/example.json'));
const definitions = new Map(Object.entries(machines).map(([name, { definition }]) => [name, definition]));
const { figures, moments } = await simulate(definitions, { ...options, rows: Math.round(options.rows) });
if (options.svg !== undefined) writeFileSync(options.svg, paceChart(moments, options.vcpus));
if (options.json) console.log(JSON.stringify(figures, null, 2));
else
  console.log(
    [
      `${count(figures.rows)} rows at the ${options.pace === 'plan' ? "plan's" : 'adaptive'} pace: ${figures.status}`,
      `  ${duration(figures.hours, 'h')} in all: batches ${duration(figures.hoursOfBatches, 'h')}, audit ${duration(figures.hoursOfAudit, 'h')}, soaks and pauses the rest`,
      `  ${count(figures.executions)} executions, the longest with ${count(figures.longestHistory)} events`,
      `  ${count(figures.transitions)} state transitions, ${count(figures.calls)} calls of functions: about $${figures.dollars.toFixed(2)}`,
    ].join('\n'),
  );
if (figures.status !== 'SUCCEEDED') process.exitCode = 1;
