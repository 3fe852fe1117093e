// The modules of Stoma's package import each other without ".js", which only bundlers resolve. This hook lets
// Node resolve them, and maps the package's name to its compiled files, because its exports name the sources.

const DIST = new URL("./node_modules/@homegrower-club/stoma/dist/", import.meta.url).href;

export async function resolve(specifier, context, next) {
  if (specifier === "@homegrower-club/stoma") return next(`${DIST}index.js`, context);
  if (specifier.startsWith("@homegrower-club/stoma/adapters/"))
    return next(`${DIST}adapters/${specifier.split("/").pop()}.js`, context);
  try {
    return await next(specifier, context);
  } catch (error) {
    if (!specifier.startsWith(".") || !context.parentURL?.startsWith(DIST)) throw error;
    return next(`${specifier}.js`, context).catch(() => next(`${specifier}/index.js`, context));
  }
}
