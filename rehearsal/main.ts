/** `npm start`: see options.ts for what it understands, rehearse.ts for what it does. */
import { ConfigurationError } from '../lambdas/core/plan/configuration-error.ts';
import { UsageError } from '../terminal/connection.ts';
import { Display } from '../terminal/display.ts';
import { tell } from '../terminal/telling.ts';
import { parseOptions } from './options.ts';

try {
  const options = parseOptions(process.argv.slice(2));
  if (options) {
    // Loaded late: the CDK takes a second, and a typo should not.
    const { rehearse } = await import('./rehearse.ts');
    process.exitCode = await rehearse(options, new Display(process.stdout, options.verbose === true));
  }
} catch (error) {
  process.exitCode = 1;
  // Ctrl+C at the question, which comes before the first write.
  if ((error as Error).name === 'ExitPromptError') tell('Nothing was changed.');
  else if (!(error instanceof UsageError || error instanceof ConfigurationError)) console.error(error);
  else if (error.message) tell(error.message);
}
