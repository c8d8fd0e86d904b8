// One function in the middle: above it what calls it, below it what it calls. Each stack counts once, at the outermost
// of the function's frames.

class Sandwich {
  constructor(element, report, onSelect) {
    this.element = element;
    this.report = report;
    this.title = element.querySelector("h2");
    this.facts = element.querySelector("dl");
    this.callers = new Graph(element.querySelector(".callers"), report, {
      label: "Callers, the function at the bottom",
      onSelect,
      onZoom: () => {},
    });
    this.callees = new Graph(element.querySelector(".callees"), report, {
      label: "Callees, the function at the top",
      onSelect,
      onZoom: () => {},
    });
  }

  show(number, order, matches) {
    const { dataset, figures, shape } = this.report;
    this.title.textContent = dataset.names[number];
    this.facts.replaceChildren(...this.report.functionFacts(number).map(described));
    for (const [graph, towardsCallers] of [[this.callers, true], [this.callees, false]]) {
      const tree = CallTree.ofFunction(dataset, figures, number, towardsCallers, order, shape);
      graph.show(tree, { growsUp: towardsCallers, zoom: [], matches });
    }
  }
}

/** The function with the largest self weight. */
function hottestFunction(figures, side) {
  const { weight } = figures.functions[side].self;
  let hottest = 0;
  for (let number = 1; number < weight.length; number++) if (weight[number] > weight[hottest]) hottest = number;
  return hottest;
}
