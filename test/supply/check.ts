/** `npm run check:supply`: licences, install scripts and integrity of every locked package, and pinned actions. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { flawsOfPackages, flawsOfWorkflow } from './policy.ts';

const project = resolve(import.meta.dirname, '..', '..');
const workflows = join(project, '.github', 'workflows');
const json = (...path: string[]) => JSON.parse(readFileSync(join(project, ...path), 'utf8'));

const flaws: string[] = [];
for (const directory of ['.', 'test/versions']) {
  const { allowScripts = {} } = json(directory, 'package.json');
  const lock = json(directory, 'package-lock.json');
  console.log(`${join(directory, 'package-lock.json')}: ${Object.keys(lock.packages).length - 1} packages`);
  flaws.push(...flawsOfPackages(lock, allowScripts));
}
for (const file of readdirSync(workflows))
  flaws.push(...flawsOfWorkflow(readFileSync(join(workflows, file), 'utf8')));

for (const flaw of flaws) console.error(flaw);
if (flaws.length > 0) process.exitCode = 1;
else console.log('Licences, install scripts, integrity and pinned actions are as they must be.');
