/** Entry of the CDK CLI, see cdk.json. */
import { App, Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks } from 'cdk-nag';
import { ConfigurationError } from '../lambdas/core/plan/configuration-error.ts';
import { configOf, regionOf } from './config.ts';
import { EncryptionRolloutStack } from './stack.ts';

try {
  const app = new App();
  const config = configOf(app.node, console.error);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  // What the CLI deploys to; where it does not know, what the settings name.
  const region = process.env.CDK_DEFAULT_REGION ?? regionOf(config)?.region;
  new EncryptionRolloutStack(app, config.stackName, {
    config,
    ...(region === undefined ? {} : { env: { region } }),
  });
  app.synth();
} catch (error) {
  if (!(error instanceof ConfigurationError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
