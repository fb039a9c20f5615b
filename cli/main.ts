/**
 * `npm run rollout --`: operates a deployed rollout; and, without AWS, installs the engine into a database by hand, removes
 * it, verifies it.
 */
import { runCommand } from './program.ts';

process.exitCode = await runCommand(process.argv.slice(2));
