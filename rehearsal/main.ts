/** `npm start`: see options.ts for what it understands, rehearse.ts for what it does. */
import { Display } from './display.ts';
import { parseOptions, UsageError } from './options.ts';
import { rehearse } from './rehearse.ts';

try {
  const options = parseOptions(process.argv.slice(2));
  process.exitCode = options ? await rehearse(options, new Display()) : 0;
} catch (error) {
  process.exitCode = 1;
  if (!(error instanceof UsageError)) console.error(error);
  else if (error.message) console.error(error.message);
}
