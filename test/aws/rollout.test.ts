/**
 * Deploys the app to an AWS emulator with the CDK CLI, once, and lives with it there: what happens in one scenario is where
 * the next one begins, as for the people who operate it.
 */
import { afterAll, beforeAll, describe } from 'vitest';
import { alarming } from './alarming.ts';
import { databases } from './databases.ts';
import { decrypting } from './decrypting.ts';
import { deploying } from './deploying.ts';
import { operating, undoing } from './operating.ts';
import { stopping } from './stopping.ts';
import { watching } from './watching.ts';
import { endWorld, makeWorld } from './world.ts';

beforeAll(makeWorld, 600_000);
afterAll(endWorld);

describe('from the command line', operating);
describe('in the days after', watching);
describe('back again', undoing);
describe('from the console, and by an alarm', stopping);
describe('alarms and templates', alarming);
describe('from a pipeline', deploying);
describe('in another language', decrypting);
describe('beside databases of other kinds', databases);
